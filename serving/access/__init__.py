"""Who may, and how often.

gate            who asks, and the quotas of requests (429)
callers         a request -> the account and the address that ask
rate_limit      takes from quotas, and says in headers what is left
guard           token and scopes of a route (401, 403)
accounts        register, log in, refresh, log out, password, deletion
tokens          signs and checks access tokens
registrations   quota of new accounts
tries           quotas of wrong passwords
policies        all quotas and their sizes
quotas          counts them, for all workers in one mapped file
paths           the paths that these tell apart
"""
