"""A request -> its caller: the account of a token or of a browser's cookie, and the address.

Tokens come in the header `Authorization`; pages also accept the cookie.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from starlette.types import Scope

from serving.access.paths import PAGES
from serving.access.tokens import WEB_KIND, Claims, TokenRefused, Tokens
from serving.http.headers import named

COOKIE = "bookclub_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent the request: the `claims` of a valid token, or None; what is wrong with an invalid one, and its kind."""

    address: str
    claims: Claims | None = None
    fault: str | None = None
    fault_kind: str = "no-token"


def caller_of(scope: Scope, tokens: Tokens) -> Caller:
    client = scope.get("client")
    address = client[0] if client else "local"
    scheme, _, token = named(scope["headers"], b"authorization").partition(" ")
    if scheme.lower() != "bearer":
        return Caller(address, _of_cookie(scope, tokens))
    try:
        return Caller(address, tokens.read(token.strip()))
    except TokenRefused as error:
        return Caller(address, fault=str(error), fault_kind=error.kind)


def _of_cookie(scope: Scope, tokens: Tokens) -> Claims | None:
    """None if the cookie is no longer valid: such a browser is anonymous, and may read what everyone may."""
    if not scope["path"].startswith(PAGES) or not (cookie := _cookie(named(scope["headers"], b"cookie"))):
        return None
    try:
        return tokens.read(cookie, WEB_KIND)
    except TokenRefused:
        return None


def _cookie(sent: str) -> str:
    """The value of our cookie among those that a browser sends; "" if it is missing.

    Without http.cookies: before Python 3.11.10 and 3.12.6 it takes seconds for 32 kB of backslashes (CVE-2024-7592).
    """
    pairs = (one.partition("=") for one in sent.split(";"))
    return next((value.strip() for name, _, value in pairs if name.strip() == COOKIE), "")


@lru_cache(10_000)
def neighbourhood(address: str) -> str:
    """What counts as one address: for IPv6 the /64, because every household has 2^64 addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
