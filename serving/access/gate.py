"""A request -> its caller, counted against their quotas; a request over a quota gets 429 before anything else runs.

Requests with a token count against the account, and against their address for all accounts together. Requests without a
token count only against the address.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bookclub_platform.core.settings import Settings
from serving.access.callers import Caller, caller_of, neighbourhood
from serving.access.paths import ACCOUNT, LOGINS, PAGES, REGISTRATIONS, UNLIMITED, UNLIMITED_BELOW
from serving.access.policies import of_requests
from serving.access.quotas import SharedQuotas, Standing
from serving.access.rate_limit import Meter, add_fields, quota_exceeded
from serving.access.tokens import Tokens
from serving.http import problems
from serving.http.headers import named


class Gate:
    """ASGI middleware that puts a Caller into `request.state.caller` and counts the request."""

    def __init__(
        self,
        app: ASGIApp,
        tokens: Tokens,
        quotas: SharedQuotas,
        settings: Settings,
        page: Callable[[Request, problems.Problem], Response],
    ) -> None:
        """`page`: what a reader of the web catalogue sees when a quota is exceeded."""
        self._app, self._tokens, self._quotas, self._page = app, tokens, quotas, page
        by_name = of_requests(settings)
        self._anonymous, self._account, self._address = (by_name[name] for name in ("anonymous", "account", "address"))
        self._logins, self._registrations = by_name["login"], by_name["register-tries"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller = caller_of(scope, self._tokens)
        if named(scope["headers"], b"cookie"):  # ours has been read, and FastAPI would parse all of them for each route
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
        scope.setdefault("state", {})["caller"] = caller
        meter = scope["state"]["meter"] = self._meter(scope["method"], scope["path"], caller)
        others: list[Standing] = []
        scope["state"]["standings"] = others
        if meter is not None and meter.is_over:
            await self._refusal(Request(scope), quota_exceeded(*meter.standings))(scope, receive, send)
            return

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and (meter is not None or others):
                standings = [*meter.standings, *others] if meter is not None else others
                add_fields(MutableHeaders(scope=message), standings)
            await send(message)

        await self._app(scope, receive, send_with_fields)

    def _meter(self, method: str, path: str, caller: Caller) -> Meter | None:
        """The quotas of the request; None if there is no limit."""
        if path in UNLIMITED or path.startswith(UNLIMITED_BELOW):
            return None
        address = neighbourhood(caller.address)
        is_post = method == "POST"  # other methods on these paths show a page, or are not allowed
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

    def _refusal(self, request: Request, problem: problems.Problem) -> Response:
        is_page = request.url.path.startswith(PAGES)
        return self._page(request, problem) if is_page else problems.of(request, problem)
