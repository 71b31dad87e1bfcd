"""Style and icon -> URLs that change with their content, so that a browser never needs to request either twice."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

STATIC = "/static"
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def asset(name: str) -> str:
    """The URL of the file with this name below static/."""
    content = files("serving.web").joinpath("static", name).read_bytes()
    return f"{STATIC}/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


class WholeFiles(StaticFiles):
    """Static files without ranges: our files are small, and Starlette refuses a bad range in plain text. The ETag is
    weak, because a compressed response has the same."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = [(name, value) for name, value in scope["headers"] if name != b"range"]
        await super().__call__({**scope, "headers": asked}, receive, send)

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["ETag"] = f"W/{response.headers['ETag']}"
        del response.headers["Accept-Ranges"]
        return response


class Assets(WholeFiles):
    """The files below static/; the response for a URL without the hash must be revalidated each time. So must one for
    another hash: a page of a newer version may have led to this process of the version before."""

    def __init__(self) -> None:
        super().__init__(packages=[("serving.web", "static")])

    def file_response(self, full_path: str | os.PathLike[str], *args: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *args, **options)
        scope = args[1]
        address = f"{scope['path']}?{scope['query_string'].decode('latin-1')}"
        response.headers["Cache-Control"] = FOR_EVER if address == asset(Path(full_path).name) else "no-cache"
        return response
