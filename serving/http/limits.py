"""A request -> the same request; 413 if its body is longer than any request needs; 415 if it is compressed, because its
real length is unknown."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.sizes import MAX_BODY_BYTES, TOO_LONG


class LimitBody:
    """ASGI middleware. FastAPI's own `max_body_size` responds in plain text, but all our errors are problems.

    No route reads the body of a GET. But a response that is streamed listens for the end of the connection, which calls
    `receive`, too: a refusal there would come in the middle of a response.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced, coding = headers.get("content-length", "0"), headers.get("content-encoding", "identity")
        read = 0

        async def receive_some() -> Message:
            nonlocal read
            if coding.lower() != "identity":
                raise _packed(coding)
            if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
                raise _too_long()
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _too_long()
            return message

        await self._app(scope, receive_some, send)


def _packed(coding: str) -> HTTPException:
    detail = f"The body has Content-Encoding: {coding[:100]}. Send it uncompressed, without this header."
    return HTTPException(415, detail, headers={"Accept-Encoding": "identity"})  # RFC 7694


def _too_long() -> HTTPException:
    return HTTPException(413, TOO_LONG[413])
