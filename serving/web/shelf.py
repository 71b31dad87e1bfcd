"""Books -> the address of each one's cover: the thumbnail that the platform keeps, so that no reader's browser asks
the shop."""

from __future__ import annotations

import os
import re
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from bookclub_platform.core.covers import thumbnail_of
from serving.access.guard import refusal
from serving.access.paths import PAGES
from serving.schemas.books import Book
from serving.web.assets import FOR_EVER

_THUMBNAIL = re.compile(r"[^/]+/[0-9a-f]{2}/[0-9a-f]{64}\.thumbnail\.webp")
COVERS = f"{PAGES}/covers"  # below the pages, whose cookie a browser sends along then


class CoverFiles(StaticFiles):
    """The thumbnails of a shelf, for who may read: neither the images as they came nor the index. Their names are the
    hashes of what they hold, so a browser need never ask twice; nor a cache that others share, unless not all may read.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if (problem := await refusal(state["caller"], state["accounts"], ["read"])) is not None:
            raise problem
        await super().__call__(scope, receive, send)

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        return super().lookup_path(path) if _THUMBNAIL.fullmatch(path) else ("", None)

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Scope, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        is_for_all = not scope["state"]["accounts"].is_login_required
        response.headers["Cache-Control"] = FOR_EVER if is_for_all else FOR_EVER.replace("public", "private")
        return response


class Shelf:
    """The covers below `folder`, one folder for each source; what is collected while it serves is seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def address(self, book: Book) -> str | None:
        """Where the thumbnail is served, None where there is none yet."""
        thumbnail = thumbnail_of(self.folder / book.source, book.image_url or "")
        return f"{COVERS}/{thumbnail.relative_to(self.folder).as_posix()}" if thumbnail is not None else None
