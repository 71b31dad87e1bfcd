"""`<folder>/index.jsonl` -> which image URL is which file: written by sources/_covers.py, read by it and by serving.

    covers = read_index(home / "covers" / "books_toscrape")
    covers[image_url].thumbnail_path(folder)

Of several lines for one URL the last holds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

INDEX = "index.jsonl"


@dataclass(frozen=True, slots=True)
class Cover:
    """One line of the index.

    Attributes:
        url: as the book's page has it; redirects do not change it.
        sha256: of the bytes as they came, in hexadecimal; None if they were no image, and then `reason` says why.
        bytes: of the image; `width` and `height` in pixels.
        seen_at: when it was fetched, UTC.
    """

    url: str
    seen_at: datetime
    sha256: str | None = None
    suffix: str | None = None
    bytes: int = 0
    width: int = 0
    height: int = 0
    etag: str | None = None
    reason: str | None = None

    def path(self, folder: Path) -> Path:
        return folder / f"{self.sha256}"[:2] / f"{self.sha256}.{self.suffix}"

    def thumbnail_path(self, folder: Path) -> Path:
        return folder / f"{self.sha256}"[:2] / f"{self.sha256}.thumbnail.webp"


def read_index(folder: Path) -> dict[str, Cover]:
    """URL -> what is known of it; empty where nothing was collected."""
    covers = {}
    path = folder / INDEX
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            facts = json.loads(line)
            covers[facts["url"]] = Cover(**facts | {"seen_at": datetime.fromisoformat(facts["seen_at"])})
        except ValueError:
            continue  # torn by the end of a process: its cover is fetched again
    return covers
