"""An answer -> the same answer with the headers that browsers want; a request with an endless address -> 414 or 431."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import problems
from serving.headers import secured

MAX_ADDRESS_BYTES = 8 * 1024
MAX_HEADER_BYTES = 32 * 1024


class SecureAnswers:
    """ASGI middleware. A route that sets one of the headers itself keeps its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = secured(message["headers"], scope["path"])
            await send(message)

        if (refusal := _too_long(scope)) is not None:
            await refusal(scope, receive, send_secured)
        else:
            await self._app(scope, receive, send_secured)


def _too_long(scope: Scope) -> problems.ProblemResponse | None:
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_ADDRESS_BYTES:
        return problems.answer(Request(scope), 414, f"The address may have {MAX_ADDRESS_BYTES} bytes at most.")
    if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
        return problems.answer(Request(scope), 431, f"The headers may have {MAX_HEADER_BYTES} bytes at most.")
    return None
