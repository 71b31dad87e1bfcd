"""Paths that quotas, logins and cookies treat differently."""

from __future__ import annotations

# Probes and the parts of pages: machines and browsers request them as often as they need, and they are cheap.
UNLIMITED = frozenset({"/health", "/ready", "/metrics", "/docs", "/redoc"})
UNLIMITED_BELOW = ("/static/", "/catalogue/covers/")
ACCOUNT = "/account"
# Only pages accept the cookie: a request that another site makes a browser send to the API has no account.
PAGES = "/catalogue"
WEB_LOGIN, WEB_REGISTER, WEB_ACCOUNT = "/catalogue/login", "/catalogue/register", "/catalogue/account"
WEB_DELETE = f"{WEB_ACCOUNT}/delete"
# Without the refresh: nobody can guess its tokens, and each reader behind one address (an office, a mobile network)
# needs it six times an hour.
LOGINS = frozenset({"/login", "/password", WEB_LOGIN, WEB_ACCOUNT, WEB_DELETE})
REGISTRATIONS = frozenset({"/register", WEB_REGISTER})
