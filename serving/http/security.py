"""A response -> the same response with security headers; a redirect -> the same redirect to a path without a host.

A request whose URL is too long -> 414; whose headers are too long -> 431; with a query that is not UTF-8, or without
exactly one Host -> 400; with a control character in its path -> 404.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http import problems
from serving.http.headers import Pair, secured
from serving.http.sizes import MAX_ADDRESS_BYTES, MAX_HEADER_BYTES

_BEYOND_ASCII = re.compile(rb"%[89a-fA-F]")
# No path here has one. Routers match with `$`, which also matches before a final line feed: `/login%0A` would be
# answered as /login, while code that compares paths (quotas, gateways) takes it for another path.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class SecureAnswers:
    """ASGI middleware. A route that sets one of the headers itself keeps its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = secured(message["headers"], scope["path"])
                if 300 < message["status"] < 400:
                    message["headers"] = [_by_path(pair) for pair in message["headers"]]
            await send(message)

        await self._app(scope, receive, send_secured)


class RefuseBroken:
    """ASGI middleware that refuses malformed requests; inside of the CORS middleware, so that pages of other sites can
    read these problems, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)


def _refusal(scope: Scope) -> problems.ProblemResponse | None:
    query = scope["query_string"]
    if len(scope["raw_path"]) + len(query) > MAX_ADDRESS_BYTES:
        return problems.plain(Request(scope), 414)
    size = hosts = 0
    for name, value in scope["headers"]:  # one loop for both checks: each request pays for it
        size += len(name) + len(value)
        hosts += name == b"host"
    if size > MAX_HEADER_BYTES:
        return problems.plain(Request(scope), 431)
    if hosts != 1 and scope["http_version"] == "1.1":  # RFC 9112, 3.2
        return problems.answer(Request(scope), 400, "Send the header Host, once.")
    if not scope["path"].isprintable() and _CONTROL.search(scope["path"]):
        return problems.nothing_there(Request(scope))
    # Frameworks decode invalid bytes as U+FFFD, which would make it a different query.
    is_beyond = not query.isascii() or (b"%" in query and _BEYOND_ASCII.search(query))
    if is_beyond and not _is_utf8(unquote_to_bytes(query)):
        return problems.plain(Request(scope), 400)
    return None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _by_path(pair: Pair) -> Pair:
    """Without the host: Starlette redirects to the host that the request named, which may be any."""
    name, value = pair
    if name != b"location":
        return pair
    parts = urlsplit(value)
    if not parts.netloc:
        return pair
    path = b"/" + parts.path.lstrip(b"/")  # after two slashes browsers would read a host again
    return name, b"%b?%b" % (path, parts.query) if parts.query else path
