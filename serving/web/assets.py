"""Style and icon -> URLs that change with their content, so that a browser never needs to request either twice."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.resources import files
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

STATIC = "/static"
FOR_EVER = "public, max-age=31536000, immutable"


@cache
def asset(name: str) -> str:
    """The URL of the file with this name below static/."""
    content = files("serving.web").joinpath("static", name).read_bytes()
    return f"{STATIC}/{name}?{hashlib.sha256(content).hexdigest()[:12]}"


class Assets(StaticFiles):
    """The files below static/; the response for a URL without the hash must be revalidated each time."""

    def __init__(self) -> None:
        super().__init__(packages=[("serving.web", "static")])

    def file_response(self, full_path: str | os.PathLike[str], *args: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *args, **options)
        scope = args[1]
        response.headers["Cache-Control"] = FOR_EVER if scope["query_string"] else "no-cache"
        return response
