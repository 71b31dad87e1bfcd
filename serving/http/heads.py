"""HEAD of whatever GET answers -> the headers of that answer, `Content-Length` too, without its body (RFC 9110, 9.3.2).

    app.add_middleware(AnswerHeads)

What lies inside is asked for GET and answers as it would: from memory, packed, 304, a problem. A body that comes in
pieces is not waited for: an export ends after its first.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class _HeadersAreSent(Exception):
    """Ends an answer whose body nobody gets."""


class AnswerHeads:
    """ASGI middleware; inside of what counts and logs requests by their method."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server looks into its own scope for whether there may be a body.
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
            scope["route"] = asked.get("route")  # for those outside, who name the request by it
