"""A book -> the URL of its cover: the thumbnail that the platform stores, so that no reader's browser sends requests to
the shop."""

from __future__ import annotations

import os
import re
from pathlib import Path

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bookclub_platform.core.covers import thumbnail_of
from serving.access.guard import refusal
from serving.access.paths import PAGES
from serving.schemas.books import Book
from serving.web.assets import FOR_EVER, WholeFiles

_THUMBNAIL = re.compile(r"[^/]+/[0-9a-f]{2}/[0-9a-f]{64}\.thumbnail\.webp")
COVERS = f"{PAGES}/covers"  # below the pages, so that browsers send the cookie for them, too


class CoverFiles(WholeFiles):
    """The thumbnails of a shelf, for callers who may read; not the original images, nor the index. Their names are
    hashes of their content, so a browser never needs to request one twice. Nor does a shared cache, unless reading
    requires a login.
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
    """The covers below `folder`, one folder for each source; covers that are collected later are found, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def address(self, book: Book) -> str | None:
        """The URL of the thumbnail; None if there is none yet."""
        thumbnail = thumbnail_of(self.folder / book.source, book.image_url or "")
        return f"{COVERS}/{thumbnail.relative_to(self.folder).as_posix()}" if thumbnail is not None else None
