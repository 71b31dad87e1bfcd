"""Image URL -> the files of that image: written by sources/_covers.py, read by it and by serving.

    covers = read_index(folder); covers[image_url].thumbnail_path(folder)      folder: home / "covers" / source
    thumbnail_of(folder, image_url)                                            one alone, in some microseconds

`index.jsonl` holds all that is known about each URL; the last line of a URL wins. Only the collector uses it: reading
it for a million covers takes seconds and hundreds of megabytes. For serving, each image also has a small file of its
own below `by_url/`, named by the SHA-256 of the URL.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

INDEX = "index.jsonl"
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Cover:
    """One line of the index.

    Attributes:
        url: as on the book's page; redirects do not change it.
        sha256: of the bytes as received, in hexadecimal; None if they were no image, and then `reason` says why.
        bytes: the size of the image; `width` and `height` are in pixels.
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
        return _thumbnail(folder, f"{self.sha256}")


def name_path(folder: Path, url: str) -> Path:
    """The file that holds the SHA-256 of the image at `url`."""
    digest = hashlib.sha256(url.encode()).hexdigest()
    return folder / "by_url" / digest[:2] / digest[2:]


def thumbnail_of(folder: Path, url: str) -> Path | None:
    """The thumbnail of the image at `url`; None if there is none."""
    try:
        digest = name_path(folder, url).read_text(errors="replace")  # a damaged file counts as missing
    except FileNotFoundError:
        return None
    return _thumbnail(folder, digest) if _DIGEST.fullmatch(digest) else None


def _thumbnail(folder: Path, digest: str) -> Path:
    return folder / digest[:2] / f"{digest}.thumbnail.webp"


def read_index(folder: Path) -> dict[str, Cover]:
    """URL -> what is known about it; empty if nothing was collected."""
    covers = {}
    path = folder / INDEX
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            facts = json.loads(line)
            covers[facts["url"]] = Cover(**facts | {"seen_at": datetime.fromisoformat(facts["seen_at"])})
        except ValueError:
            continue  # a line cut off when a process died: its cover is fetched again
    return covers
