"""HEAD wherever there is GET -> the headers of the GET response, even `Content-Length`, and no body (RFC 9110, 9.3.2).

    app.add_middleware(AnswerHeads)

The inner application gets a GET and responds as usual: from memory, compressed, with 304, with a problem. A streamed
body is not awaited: an export ends after its first chunk.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _HeadersAreSent(Exception):
    """Ends a response whose body is not sent."""


class AnswerHeads:
    """ASGI middleware; inside of the middleware that counts and logs requests by method."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server reads the method from its own scope to decide whether the response may have a body.
        asked = {**scope, "method": "GET"}

        async def send_without_body(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({"type": "http.response.body", "body": b""})
            if message.get("more_body", False):
                raise _HeadersAreSent

        try:
            await self._app(asked, receive, send_without_body)
        except _HeadersAreSent:
            pass
        finally:
            scope["route"] = asked.get("route")  # for outer middleware, which names the request by its route
