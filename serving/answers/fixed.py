"""The files of /docs and the OpenAPI document -> the same bytes for all clients, made and gzipped once, with an ETag.

    fixed.install(app)       after all routes have been added

Otherwise FastAPI would render the document, and the middleware gzip Swagger's 1.5 MB, for every request.
"""

from __future__ import annotations

import asyncio
import gzip
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from serving.answers.versions import is_named, weak_tag
from serving.http.headers import Pair, listed, named

_SCRIPTS = "static-offline-docs"  # what fastapi-offline calls its folder
_PACKED_FROM = 1000  # bytes
# A new release of the server may change the files and keep their names.
_OF_FILES, _OF_DOCUMENT = b"public, max-age=3600", b"public, no-cache"


@dataclass(frozen=True, slots=True)
class _Content:
    """`packed`: `plain` gzipped; empty where gzip would not help (images, short content)."""

    plain: bytes
    packed: bytes
    tag: str


def install(app: FastAPI) -> None:
    """Replace the routes of FastAPI and fastapi-offline with these, at the same paths."""
    app.router.routes[:] = [own for route in app.router.routes for own in _own(app, route)]


def _own(app: FastAPI, route: BaseRoute) -> list[BaseRoute]:
    if isinstance(route, Mount) and route.name == _SCRIPTS:
        assert isinstance(route.app, StaticFiles) and route.app.directory is not None
        return [_file(f"{route.path}/{path.name}", path) for path in sorted(Path(route.app.directory).iterdir())]
    if isinstance(route, Route) and route.path == app.openapi_url:
        document = Fixed(lambda: bytes(JSONResponse(app.openapi()).body), "application/json", _OF_DOCUMENT)
        return [Route(route.path, document, methods=["GET"], include_in_schema=False)]
    return [route]


def _file(address: str, path: Path) -> Route:
    media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    content = Fixed(path.read_bytes, media_type, _OF_FILES)
    return Route(address, content, methods=["GET"], include_in_schema=False)


class Fixed:
    """ASGI application that serves what `make` returns. `make` is called on the first request."""

    def __init__(self, make: Callable[[], bytes], media_type: str, sharing: bytes) -> None:
        self._make, self._media_type, self._sharing = make, media_type, sharing
        self._content: _Content | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        content = await self._made()
        told: list[Pair] = [(b"etag", content.tag.encode()), (b"cache-control", self._sharing)]
        if content.packed:
            told.append((b"vary", b"Accept-Encoding"))
        if is_named(content.tag, listed(scope["headers"], b"if-none-match")):
            status, body = 304, b""
        else:
            status, body = 200, content.plain
            told += [(b"content-type", self._media_type.encode())]
            if "gzip" in named(scope["headers"], b"accept-encoding") and content.packed:
                body = content.packed
                told.append((b"content-encoding", b"gzip"))
            told += [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body})

    async def _made(self) -> _Content:
        async with self._making:
            if self._content is None:
                self._content = await asyncio.to_thread(self._packed)
            return self._content

    def _packed(self) -> _Content:
        plain = self._make()
        is_picture = self._media_type.startswith("image/")
        packed = b"" if is_picture or len(plain) < _PACKED_FROM else gzip.compress(plain, mtime=0)
        return _Content(plain, packed, weak_tag(plain))
