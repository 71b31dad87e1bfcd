"""Image URLs -> `<folder>/<first two digits>/<sha256>.<jpg|png|webp|gif>` and `<sha256>.thumbnail.webp`, fetched once.

    with Fetcher(delay_s=0.5, concurrency=8) as fetcher:
        report = collect_covers(image_urls, fetcher, home / "covers" / "books_toscrape")

`<folder>/index.jsonl` and `<folder>/by_url/` map URLs to files: see core/covers.py. Lines are appended as covers
arrive, after their files, so that a collection killed at any moment can resume. Known images are not requested again:
a shop's image URLs identify the image (books.toscrape: its hash), and another image has another URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bookclub_platform.core.covers import INDEX, Cover, name_path, read_index
from bookclub_platform.core.errors import ShopUnavailable, SourceError
from bookclub_platform.core.files import replaced
from bookclub_platform.sources._contract import FailedPage, Page, PageFetcher
from bookclub_platform.sources._images import NoPicture, checked

MAX_PIXELS = 50_000_000  # a scanned poster; 150 MB decoded
REJECTED_FOR = timedelta(days=7)  # after this, a URL that gave no image is requested again
_THREADS = 16  # they wait for the fetcher, which has its own concurrency limit


@dataclass(slots=True)
class CoverReport:
    """What one collection did. new + known + rejected + failed = the number of distinct URLs.

    Attributes:
        new: fetched and stored; `same_bytes` of them were already stored under another URL.
        known: not requested, because the index has the image, or the reason why there is none.
        bytes: of the new images.
        rejected: the response is no image that we keep; with the reason.
        failed: could not be fetched; requested again next time.
    """

    folder: Path
    new: int = 0
    same_bytes: int = 0
    known: int = 0
    bytes: int = 0
    seconds: float = 0.0
    rejected: list[FailedPage] = field(default_factory=list)
    failed: list[FailedPage] = field(default_factory=list)


def collect_covers(
    image_urls: Iterable[str], fetcher: PageFetcher, folder: Path, max_pixels: int = MAX_PIXELS
) -> CoverReport:
    """Fetch and store the images that are not known yet.

    Raises:
        ShopUnavailable: the shop is down or refuses visits; what was received so far is kept.
    """
    started, report = time.monotonic(), CoverReport(folder)
    known, now = read_index(folder), datetime.now(UTC)
    wanted = []
    for url in dict.fromkeys(image_urls):
        if url in known and _is_good(known[url], folder, now):
            report.known += 1
            _name(known[url], folder)  # older collections have an index, but no by_url/
        else:
            wanted.append(url)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / INDEX).open("ab") as index:
        for url, outcome in _outcomes(fetcher, wanted):
            if isinstance(outcome, FailedPage):
                report.failed.append(outcome)
            else:
                _append(index, _kept(url, outcome, report, max_pixels))
        os.fsync(index.fileno())
    report.seconds = time.monotonic() - started
    return report


def _is_good(cover: Cover, folder: Path, now: datetime) -> bool:
    """Whether nothing is to be fetched: its files exist, or it was rejected too recently to be tried again."""
    if cover.sha256 is None:
        return now - cover.seen_at < REJECTED_FOR
    path = cover.path(folder)
    return path.exists() and path.stat().st_size == cover.bytes and cover.thumbnail_path(folder).exists()


def _append(index: Any, cover: Cover) -> None:
    """Append a line with one write, so that it is either complete or cut off at its end. The line break comes first, so
    that it starts a new line even after one that was cut off."""
    facts = asdict(cover) | {"seen_at": cover.seen_at.isoformat()}
    index.write(b"\n" + json.dumps(facts).encode())
    index.flush()


def _kept(url: str, page: Page, report: CoverReport, max_pixels: int) -> Cover:
    """Validate an image, write its files, count it."""
    try:
        picture = checked(page.body, max_pixels)
    except NoPicture as error:
        report.rejected.append(FailedPage(url, "cover", str(error)))
        return Cover(url, page.fetched_at, reason=str(error))
    etag = next((value for name, value in page.headers if name.lower() == "etag"), None)
    cover = Cover(
        url, page.fetched_at, hashlib.sha256(page.body).hexdigest(), picture.suffix, len(page.body),
        picture.width, picture.height, etag,
    )  # fmt: skip
    report.same_bytes += _is_good(cover, report.folder, page.fetched_at)
    _write(cover.path(report.folder), page.body)
    _write(cover.thumbnail_path(report.folder), picture.thumbnail)
    _name(cover, report.folder)
    report.new += 1
    report.bytes += len(page.body)
    return cover


def _name(cover: Cover, folder: Path) -> None:
    """Write the file that maps the URL to the image, unless it exists."""
    path = name_path(folder, cover.url)
    if cover.sha256 is not None and not (path.exists() and path.read_text() == cover.sha256):
        _write(path, cover.sha256.encode())


def _write(path: Path, body: bytes) -> None:
    """Write a file atomically: a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as file:
        file.write(body)


def _outcomes(fetcher: PageFetcher, urls: list[str]) -> Iterator[tuple[str, Page | FailedPage]]:
    """The outcome for each URL, in order. Does not use fetch_many, which does not report the URL that a page was
    redirected from: a redirected image would be fetched again each time."""
    under_way: deque[tuple[str, Future[Page | FailedPage]]] = deque()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="covers")
    try:
        for url in urls:
            under_way.append((url, pool.submit(_outcome, fetcher, url)))
            if len(under_way) > 2 * _THREADS:
                asked, future = under_way.popleft()
                yield asked, future.result()
        for asked, future in under_way:
            yield asked, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(fetcher: PageFetcher, url: str) -> Page | FailedPage:
    try:
        return fetcher.fetch(url, "cover")
    except ShopUnavailable:
        raise
    except SourceError as error:
        return FailedPage(url, "cover", error.reason)
