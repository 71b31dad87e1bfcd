"""Books -> the address of each one's cover: the thumbnail that the platform keeps, so that no reader's browser asks
the shop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from bookclub_platform.core.covers import INDEX, Cover, read_index
from serving.schemas import Book
from serving.web.assets import FOR_EVER

COVERS = "/covers"


class CoverFiles(StaticFiles):
    """The files of a shelf. Their names are the hashes of what they hold, so a browser need never ask twice."""

    def file_response(self, full_path: str | os.PathLike[str], *args: Any, **options: Any) -> Response:
        response = super().file_response(full_path, *args, **options)
        response.headers["Cache-Control"] = FOR_EVER
        response.headers["X-Content-Type-Options"] = "nosniff"
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
