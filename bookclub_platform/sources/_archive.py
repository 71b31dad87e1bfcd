"""Page -> `<folder>/<source>/<category>/<crawl_id>.warc.gz` -> Page: WARC (ISO 28500), gzip per record.

    python -m warcio index .bookclub/raw/books_toscrape/travel/<crawl_id>.warc.gz     # any WARC tool reads the files

A file begins with a warcinfo record (which category this is) and ends with a metadata record (whether every page
came). While it grows it is called `.part`, so that a crawl that was killed is never taken for one that ended.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources._contract import Kind, Page

_SCHEMES = ("http:", "https:", "file:")  # warcio else hands out the files of this machine without their headers
_SUFFIX = ".warc.gz"
_KIND = "Bookclub-Page-Kind"
_DATE = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class KeptCrawl:
    """One crawl of one category that ended.

    Attributes:
        is_complete: every page that the shop lists came; if not, the file has those that did.
        finished_at: UTC.
    """

    path: Path
    crawl_id: str
    category: Category
    finished_at: datetime
    is_complete: bool


class PageArchive:
    """Keeps the pages of one crawl of one category as they come; a context manager.

    Leaving the block without `finish` leaves `<crawl_id>.warc.gz.part`, which nothing reads.
    """

    def __init__(self, folder: Path, source: str, category: Category, crawl_id: str) -> None:
        self.crawl_id, self.category = crawl_id, category
        self.path = _folder(folder, source, category.slug) / f"{_safe(crawl_id)}{_SUFFIX}"
        self._part = self.path.with_name(self.path.name + ".part")
        self._part.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._part.open("wb")
        self._writer = WARCWriter(self._file, gzip=True, warc_version="1.1")
        facts = {"software": "bookclub-platform", "isPartOf": crawl_id, "source": source, **asdict(category)}
        self._writer.write_record(self._writer.create_warcinfo_record(self.path.name, _one_line(facts)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, page: Page) -> None:
        """Keep one page; it survives the end of this process."""
        status_line = f"{page.status} {HTTPStatus(page.status).phrase}"
        record = self._writer.create_warc_record(
            page.url,
            "response",
            payload=BytesIO(page.body),
            length=len(page.body),
            http_headers=StatusAndHeaders(status_line, list(page.headers), protocol="HTTP/1.1"),
            warc_headers_dict={"WARC-Date": page.fetched_at.strftime(_DATE), _KIND: page.kind},
        )
        self._writer.write_record(record)

    def finish(self, is_complete: bool) -> Path:
        """Close the file and give it its name."""
        summary = json.dumps({"is_complete": is_complete}).encode()
        record = self._writer.create_warc_record(
            f"urn:crawl:{self.crawl_id}",
            "metadata",
            payload=BytesIO(summary),
            length=len(summary),
            warc_content_type="application/json",
            warc_headers_dict={"WARC-Date": datetime.now(UTC).strftime(_DATE)},
        )
        self._writer.write_record(record)
        os.fsync(self._file.fileno())
        self._file.close()
        return self._part.replace(self.path)


def latest(folder: Path, source: str, category: str) -> KeptCrawl | None:
    """The newest crawl of a category (slug) that ended, None if there is none. Crawl ids sort by time.

    Raises:
        PermanentSourceError: its file is damaged.
    """
    paths = sorted(_folder(folder, source, category).glob(f"*{_SUFFIX}"))
    return kept_crawl(paths[-1]) if paths else None


def read_pages(path: Path) -> Iterator[Page]:
    """The pages of a file, in the order in which they came.

    Raises:
        PermanentSourceError: the file is damaged.
    """
    for record in _records(path):
        if record.rec_type == "response":
            yield _page(record)


def kept_crawl(path: Path) -> KeptCrawl:
    """What a file says of its crawl. Raises PermanentSourceError if it is damaged."""
    records = [(r.rec_type, _date(r), r.content_stream().read()) for r in _records(path) if r.rec_type != "response"]
    (_, _, about), (_, finished_at, summary) = records[0], records[-1]
    facts = dict(line.split(": ", 1) for line in about.decode().splitlines())
    category = Category(facts["slug"], facts["name"], facts["url"])
    return KeptCrawl(path, facts["isPartOf"], category, finished_at, json.loads(summary)["is_complete"])


def _records(path: Path) -> Iterator[Any]:
    _check(path)
    last = None
    with path.open("rb") as file:
        records = ArchiveIterator(file)
        records.loader.HTTP_SCHEMES = _SCHEMES
        for record in records:
            last = record.rec_type
            yield record
    if last != "metadata":
        raise PermanentSourceError(str(path), "ends before the crawl's end. Crawl it again.")


def _check(path: Path) -> None:
    """Read through the file's checksums: warcio hands out a torn record without a word."""
    try:
        with gzip.open(path) as file:
            while file.read(1024 * 1024):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PermanentSourceError(str(path), f"is damaged ({error}). Crawl it again.") from error


def _page(record: Any) -> Page:
    return Page(
        url=record.rec_headers.get_header("WARC-Target-URI"),
        status=int(record.http_headers.get_statuscode()),
        headers=tuple(record.http_headers.headers),
        body=record.content_stream().read(),
        kind=cast(Kind, record.rec_headers.get_header(_KIND)),
        fetched_at=_date(record),
    )


def _date(record: Any) -> datetime:
    return datetime.strptime(record.rec_headers.get_header("WARC-Date"), _DATE).replace(tzinfo=UTC)


def _folder(folder: Path, source: str, category: str) -> Path:
    return folder / _safe(source) / _safe(category)


def _safe(name: str) -> str:
    """Names come from shops and callers, and become folders."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise PermanentSourceError(name, "cannot be the name of a file or folder")
    return name


def _one_line(facts: dict[str, str]) -> dict[str, str]:
    return {name: " ".join(value.split()) for name, value in facts.items()}
