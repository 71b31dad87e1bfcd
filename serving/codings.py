"""`Accept-Encoding: gzip;q=0, br` -> the same without gzip: who refuses a coding by its weight does not get it.

    app.add_middleware(RefusedCodings)

What packs answers, and what keeps packed ones, looks for the word alone (RFC 9110, 12.5.3).
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_REFUSED = re.compile(rb"[^,]*gzip[ \t]*;[ \t]*q=0(?:\.0{0,3})?[ \t]*(?=,|$)", re.IGNORECASE)


class RefusedCodings:
    """ASGI middleware; outside of what packs or keeps answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for at, (name, value) in enumerate(scope["headers"]):
                if name == b"accept-encoding" and b"=0" in value:
                    scope["headers"][at] = name, _REFUSED.sub(b"", value)
        await self._app(scope, receive, send)
