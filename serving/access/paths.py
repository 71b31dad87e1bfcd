"""Paths that quotas, logins and cookies tell apart."""

from __future__ import annotations

# Probes and what a page is made of: asked by machines and browsers as often as they need, and cheap.
UNLIMITED = frozenset({"/health", "/ready", "/metrics", "/docs", "/redoc"})
UNLIMITED_BELOW = ("/static/", "/catalogue/covers/")
ACCOUNT = "/account"
# Pages take the cookie, and only they: what another site makes a browser send to the API comes without an account.
PAGES = "/catalogue"
WEB_LOGIN, WEB_REGISTER, WEB_ACCOUNT = "/catalogue/login", "/catalogue/register", "/catalogue/account"
WEB_DELETE = f"{WEB_ACCOUNT}/delete"
# Not the refresh: nobody guesses its tokens, and each reader behind one address (an office, a mobile network) needs it
# six times an hour.
LOGINS = frozenset({"/login", "/password", WEB_LOGIN, WEB_ACCOUNT, WEB_DELETE})
REGISTRATIONS = frozenset({"/register", WEB_REGISTER})
