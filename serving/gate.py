"""A request -> who asks, and whether it is within their quota; what is beyond is answered 429 before anything runs.

Every answer under a quota says how the caller stands, in the header fields of draft-ietf-httpapi-ratelimit-headers-10:

    RateLimit-Policy: "anonymous";q=120;w=60
    RateLimit: "anonymous";r=117;t=2

and with another quota than that of requests likewise, behind it, where the answer counted against one.
"""

from __future__ import annotations

import ipaddress
import math
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
    """Takes one unit of a caller's quota, and then what a route adds whose answer costs more than others.

    Attributes:
        standing: how the caller stands by now.
    """

    def __init__(self, quotas: SharedQuotas, quota: Quota, who: str) -> None:
        self._quotas, self._quota, self._who = quotas, quota, who
        self.standing = quotas.take(quota, who)

    def take(self, units: int) -> None:
        """Take so many more, but for what is more than the whole quota.

        Raises:
            Problem: 429, that goes beyond the quota.
        """
        standing = self._quotas.take(self._quota, self._who, min(units, self._quota.amount - 1))
        if standing.is_over:
            raise beyond(standing)
        self.standing = standing


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
        self._anonymous, self._account, self._logins, self._registrations = of_requests(settings).values()

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
        if meter is not None and meter.standing.is_over:
            await _refusal(Request(scope), meter.standing)(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start":
                _add_fields(MutableHeaders(scope=message), [meter.standing, *others] if meter is not None else others)
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
        who = None
        is_post = method == "POST"  # whatever else is asked there is to look at a page, or not taken
        if (is_post and path in LOGINS) or (method == "DELETE" and path == ACCOUNT):
            quota = self._logins
        elif is_post and path in REGISTRATIONS:
            quota = self._registrations
        elif caller.claims is not None:
            quota, who = self._account, str(caller.claims.user_id)
        else:
            quota = self._anonymous
        return Meter(self._quotas, quota, who or neighbourhood(caller.address)) if quota.amount else None


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


def beyond(standing: Standing) -> problems.Problem:
    """The problem for who is beyond a quota."""
    quota = standing.quota
    wait_s = math.ceil(standing.retry_s or 0)
    return problems.Problem(
        429,
        "quota-exceeded",
        f"{sentence(quota)} Ask again in {wait_s} s.",
        headers={"Retry-After": str(wait_s)} | _fields(standing),
        **{"violated-policies": [quota.name]},
    )


def sentence(quota: Quota) -> str:
    """That it is spent. Not "so many a minute": one that was whole lets nearly twice as many through in the first."""
    step_s = quota.window_s / quota.amount
    return (
        f"The quota {quota.name} is spent: it holds {quota.amount} {quota.of}, and one comes back every {step_s:g} s."
    )


def _refusal(request: Request, standing: Standing) -> Response:
    problem = beyond(standing)
    return beyond_page(request, problem) if request.url.path.startswith(PAGES) else problems.of(request, problem)


def beyond_page(request: Request, problem: problems.Problem) -> Response:
    """The page for who is beyond a quota."""
    headers = problem.headers or {}
    text = f"That was more than we take at once. Please try again in {headers['Retry-After']} seconds."
    answer = page_for(request, "fault.html", problem.status, title="A moment, please", text=text)
    answer.headers.update({"Cache-Control": "no-store"} | headers)
    return answer


def _add_fields(headers: MutableHeaders, standings: list[Standing]) -> None:
    """Say how the caller stands, before what the answer says itself: of a quota that it went beyond."""
    told = headers.get("RateLimit-Policy", "")
    for standing in reversed(standings):
        if f'"{standing.quota.name}";' in told:
            continue
        for name, field in _fields(standing).items():
            headers[name] = f"{field}, {headers[name]}" if name in headers else field


def _fields(standing: Standing) -> dict[str, str]:
    quota = standing.quota
    return {
        "RateLimit-Policy": f'"{quota.name}";q={quota.amount};w={quota.window_s}',
        "RateLimit": f'"{quota.name}";r={standing.remaining};t={math.ceil(standing.whole_in_s)}',
    }
