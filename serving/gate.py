"""A request -> who asks, and whether it is within their quota; what is beyond is answered 429 before anything runs.

Every answer under a quota says how the caller stands, in the header fields of draft-ietf-httpapi-ratelimit-headers-10:

    RateLimit-Policy: "anonymous";q=120;w=60
    RateLimit: "anonymous";r=117;t=58

Requests with a token count for the account, and for the address that they come from, whatever the accounts:

    RateLimit-Policy: "account";q=1200;w=60, "address";q=6000;w=60

Other quotas that the answer counted against follow in the same fields.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bookclub_platform.core.settings import Settings
from serving import problems
from serving.headers import named
from serving.policies import of_requests
from serving.quotas import Quota, SharedQuotas, Standing
from serving.tokens import WEB_KIND, Claims, TokenRefused, Tokens
from serving.web.pages import page_for

# Probes and what a page is made of: asked by machines and browsers as often as they need, and cheap.
UNLIMITED = frozenset({"/health", "/ready", "/metrics", "/docs", "/redoc"})
UNLIMITED_BELOW = ("/static/", "/catalogue/covers/")
# Not the refresh: nobody guesses its tokens, and each reader behind one address (an office, a mobile network) needs it
# six times an hour.
ACCOUNT = "/account"
WEB_LOGIN, WEB_REGISTER, WEB_ACCOUNT = "/catalogue/login", "/catalogue/register", "/catalogue/account"
WEB_DELETE = f"{WEB_ACCOUNT}/delete"
LOGINS = frozenset({"/login", "/password", WEB_LOGIN, WEB_ACCOUNT, WEB_DELETE})
REGISTRATIONS = frozenset({"/register", WEB_REGISTER})
# Pages take the cookie, and only they: what another site makes a browser send to the API comes without an account.
PAGES = "/catalogue"
COOKIE = "bookclub_session"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: `claims` of a token that holds, or None; `fault`, of this kind, if a token came that does not."""

    address: str
    claims: Claims | None = None
    fault: str | None = None
    fault_kind: str = "no-token"


class Meter:
    """Takes one unit of a caller's quotas, and then what a route adds whose answer costs more than others.

    Attributes:
        standings: how the caller stands by now.
    """

    def __init__(self, quotas: SharedQuotas, asked: Sequence[tuple[Quota, str]]) -> None:
        self._quotas, self._asked = quotas, asked
        self._most = min(quota.amount for quota, _ in asked)
        self.standings = quotas.take_all(asked)

    @property
    def is_over(self) -> bool:
        return any(standing.is_over for standing in self.standings)

    def take(self, units: int) -> None:
        """Take so many more, but for what is more than the whole quota.

        Raises:
            Problem: 429, that goes beyond the quota.
        """
        standings = self._quotas.take_all(self._asked, min(units, self._most - 1))
        if any(standing.is_over for standing in standings):
            raise beyond(*standings)
        self.standings = standings


def charge(request: Request, units: int) -> None:
    """Count the request as `units` of the quota of whoever asks; it was counted as one when it came.

    Raises:
        Problem: 429, that goes beyond the quota.
    """
    meter: Meter | None = request.state.meter
    if meter is not None and units > 1:
        meter.take(units - 1)


def tell(request: Request, standing: Standing) -> None:
    """Let the answer say how the caller stands with another quota than that of requests, too."""
    request.state.standings.append(standing)


class Gate:
    """ASGI middleware that puts a Caller into `request.state.caller` and counts the request."""

    def __init__(self, app: ASGIApp, tokens: Tokens, quotas: SharedQuotas, settings: Settings) -> None:
        self._app, self._tokens, self._quotas = app, tokens, quotas
        by_name = of_requests(settings)
        self._anonymous, self._account, self._address = (by_name[name] for name in ("anonymous", "account", "address"))
        self._logins, self._registrations = by_name["login"], by_name["register-tries"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        if named(scope["headers"], b"cookie"):  # ours is read, and FastAPI would read all of them for each route
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        scope.setdefault("state", {})["caller"] = caller
        meter = scope["state"]["meter"] = self._meter(scope["method"], scope["path"], caller)
        others: list[Standing] = []
        scope["state"]["standings"] = others
        if meter is not None and meter.is_over:
            await _refusal(Request(scope), meter.standings)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and (meter is not None or others):
                standings = [*meter.standings, *others] if meter is not None else others
                _add_fields(MutableHeaders(scope=message), standings)
            await send(message)

        await self._app(scope, receive, send_with_fields)

    def _caller(self, scope: Scope) -> Caller:
        client = scope.get("client")
        address = client[0] if client else "local"
        scheme, _, token = named(scope["headers"], b"authorization").partition(" ")
        if scheme.lower() != "bearer":
            return Caller(address, self._of_cookie(scope))
        try:
            return Caller(address, self._tokens.read(token.strip()))
        except TokenRefused as error:
            return Caller(address, fault=str(error), fault_kind=error.kind)

    def _of_cookie(self, scope: Scope) -> Claims | None:
        """Of a browser whose cookie is not good any more nothing is known: it may read what all may."""
        if not scope["path"].startswith(PAGES) or not (cookie := _cookie(named(scope["headers"], b"cookie"))):
            return None
        try:
            return self._tokens.read(cookie, WEB_KIND)
        except TokenRefused:
            return None

    def _meter(self, method: str, path: str, caller: Caller) -> Meter | None:
        """None where there is no limit."""
        if path in UNLIMITED or path.startswith(UNLIMITED_BELOW):
            return None
        address = neighbourhood(caller.address)
        is_post = method == "POST"  # whatever else is asked there is to look at a page, or not taken
        if (is_post and path in LOGINS) or (method == "DELETE" and path == ACCOUNT):
            asked = [(self._logins, address)]
        elif is_post and path in REGISTRATIONS:
            asked = [(self._registrations, address)]
        elif caller.claims is not None:
            asked = [(self._account, str(caller.claims.user_id)), (self._address, address)]
        else:
            asked = [(self._anonymous, address)]
        limited = [(quota, who) for quota, who in asked if quota.amount]
        return Meter(self._quotas, limited) if limited else None


def _cookie(sent: str) -> str:
    """Ours among those that a browser sends; "" if it is not there.

    Not by http.cookies: before Python 3.11.10 and 3.12.6 it takes seconds for 32 kB of backslashes (CVE-2024-7592).
    """
    pairs = (one.partition("=") for one in sent.split(";"))
    return next((value.strip() for name, _, value in pairs if name.strip() == COOKIE), "")


@lru_cache(10_000)
def neighbourhood(address: str) -> str:
    """What counts as one address: of IPv6 the /64, for every household has 2^64 of them."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))


def beyond(*standings: Standing) -> problems.Problem:
    """The problem for who is beyond one of these quotas, or several."""
    over = [standing for standing in standings if standing.is_over]
    quota = over[0].quota
    wait_s = math.ceil(max(standing.retry_s or 0 for standing in over))
    return problems.Problem(
        "quota-exceeded",
        f"{sentence(quota)} Retry in {wait_s} s.",
        headers={"Retry-After": str(wait_s)} | _fields(standings),
        **{"violated-policies": [standing.quota.name for standing in over]},
    )


def sentence(quota: Quota) -> str:
    """That it is spent."""
    return f"The quota {quota.name} is exhausted: {quota.amount} {quota.of} in {quota.window_s} s."


def _refusal(request: Request, standings: Sequence[Standing]) -> Response:
    problem = beyond(*standings)
    return beyond_page(request, problem) if request.url.path.startswith(PAGES) else problems.of(request, problem)


def beyond_page(request: Request, problem: problems.Problem) -> Response:
    """The page for who is beyond a quota."""
    headers = problem.headers or {}
    text = f"Please try again in {headers['Retry-After']} seconds."
    answer = page_for(request, "fault.html", problem.status, title="Too many requests", text=text)
    answer.headers.update({"Cache-Control": "no-store"} | headers)
    return answer


def _add_fields(headers: MutableHeaders, standings: Sequence[Standing]) -> None:
    """Say how the caller stands, before what the answer says itself: of a quota that it went beyond."""
    told = headers.get("RateLimit-Policy", "")
    lacking = [standing for standing in standings if f'"{standing.quota.name}";' not in told]
    for name, field in _fields(lacking).items() if lacking else ():
        headers[name] = f"{field}, {headers[name]}" if name in headers else field


def _fields(standings: Sequence[Standing]) -> dict[str, str]:
    policies = [f'"{one.quota.name}";q={one.quota.amount};w={one.quota.window_s}' for one in standings]
    limits = [f'"{one.quota.name}";r={one.remaining};t={math.ceil(one.window_s)}' for one in standings]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}
