"""Who may send requests, and how many.

gate            identifies the caller, enforces the quotas of requests (429)
callers         a request -> the caller's account and address
rate_limit      takes from quotas, and puts what is left into headers
guard           checks the token and scopes for a route (401, 403)
accounts        register, log in, refresh, log out, password, deletion
tokens          signs and checks access tokens
registrations   the quota of new accounts
tries           quotas of wrong passwords
policies        all quotas and their sizes
quotas          counts them, for all workers in one mapped file
paths           the paths that these modules treat differently
"""
