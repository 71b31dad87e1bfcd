"""Books -> the address of each one's cover: the thumbnail that the platform keeps, so that no reader's browser asks
the shop."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from bookclub_platform.core.covers import INDEX, Cover, read_index
from serving.gate import PAGES
from serving.guard import refusal
from serving.schemas import Book
from serving.web.assets import FOR_EVER

COVERS = f"{PAGES}/covers"  # below the pages, whose cookie a browser sends along then


class CoverFiles(StaticFiles):
    """The files of a shelf, for who may read. Their names are the hashes of what they hold, so a browser need never ask
    twice; nor a cache that others share, unless not all may read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        if (problem := await refusal(state["caller"], state["accounts"], ["read"])) is not None:
            raise problem
        await super().__call__(scope, receive, send)

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
        self._read: dict[str, tuple[float, dict[str, Cover]]] = {}

    def address(self, book: Book) -> str | None:
        """Where the thumbnail is served, None where there is none yet."""
        cover = self._covers(book.source).get(book.image_url or "")
        if cover is None or cover.sha256 is None:
            return None
        return f"{COVERS}/{cover.thumbnail_path(Path(book.source)).as_posix()}"

    def _covers(self, source: str) -> dict[str, Cover]:
        folder = self.folder / source
        try:
            changed_at = (folder / INDEX).stat().st_mtime
        except FileNotFoundError:
            return {}
        read_at, covers = self._read.get(source, (0.0, {}))
        if read_at != changed_at:
            covers = read_index(folder)
            self._read[source] = changed_at, covers
        return covers
