"""`Accept-Encoding: gzip;q=0, br` -> the same without gzip, so that a client that refuses it by weight does not get it.

    app.add_middleware(RefusedCodings)

The middleware that compresses responses, and the cache of compressed ones, look only for the word `gzip` and ignore its
weight (RFC 9110, 12.5.3).
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

_NEVER = {b"q=0", b"q=0.", b"q=0.0", b"q=0.00", b"q=0.000"}


class RefusedCodings:
    """ASGI middleware; outside of the middleware that compresses or caches responses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for at, (name, value) in enumerate(scope["headers"]):
                if name == b"accept-encoding" and b"=0" in value:
                    scope["headers"][at] = name, b",".join(one for one in value.split(b",") if not _is_refused(one))
        await self._app(scope, receive, send)


def _is_refused(coding: bytes) -> bool:
    name, _, weight = coding.lower().partition(b";")
    return name.rstrip().endswith(b"gzip") and weight.strip() in _NEVER
