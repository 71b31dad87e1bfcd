"""Record -> bytes of a WARC file -> record with its place and verified checksums: ISO 28500, gzip per record.

    python -m warcio index .bookclub/raw/books_toscrape/travel/<crawl_id>.warc.gz     # any WARC tool reads the files
    python -m warcio extract --payload <file> <offset>                                # the page at a place

This module defines how a page, or the fact that it has not changed, is written as a record. _archive.py defines which
files there are and what they mean. The only module that imports warcio.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast

from warcio.archiveiterator import ArchiveIterator
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources._contract import Kind, Page, Unchanged

_NOT_MODIFIED = "http://netpreserve.org/warc/1.1/revisit/server-not-modified"
_SCHEMES = ("http:", "https:", "file:")  # otherwise warcio returns records of local files without their headers
_KIND = "Bookclub-Page-Kind"
# As Heritrix writes them; the standard's own fields name the page and its date, but not the file.
_IN_FILE, _AT_OFFSET = "WARC-Refers-To-Filename", "WARC-Refers-To-File-Offset"
_DATE = "%Y-%m-%dT%H:%M:%S.%fZ"
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a record: the file, and the offset at which the record's gzip member begins."""

    path: Path
    offset: int


@dataclass(frozen=True)
class Record:
    """One record of a file, parsed on demand: a crawl's index needs the headers of every record, but few bodies.

    Attributes:
        end: the offset at which the record ends.
    """

    place: Place
    end: int
    content: bytes

    @cached_property
    def _parsed(self) -> Any:
        parsed = ArchiveIterator(BytesIO(self.content))
        parsed.loader.HTTP_SCHEMES = _SCHEMES
        return next(iter(parsed))

    def _header(self, name: str) -> str:
        return cast(str, self._parsed.rec_headers.get_header(name))

    @property
    def type(self) -> str:
        """`warcinfo`, `response`, `revisit` or `metadata`."""
        return cast(str, self._parsed.rec_type)

    @property
    def url(self) -> str:
        return self._header("WARC-Target-URI")

    @property
    def kind(self) -> Kind:
        return cast(Kind, self._header(_KIND))

    @property
    def written_at(self) -> datetime:
        """UTC; for a page, when it was fetched."""
        return datetime.strptime(self._header("WARC-Date"), _DATE).replace(tzinfo=UTC)

    @property
    def original(self) -> Place:
        """The place of the page itself: this record, or the one that a revisit refers to."""
        if self.type != "revisit":
            return self.place
        return Place(self.place.path.with_name(Path(self._header(_IN_FILE)).name), int(self._header(_AT_OFFSET)))

    def page(self) -> Page:
        """The page of a response."""
        http = self._parsed.http_headers
        status, headers = int(http.get_statuscode()), tuple(http.headers)
        return Page(self.url, status, headers, self.body(), self.kind, self.written_at)

    def body(self) -> bytes:
        """The body; can be read only once."""
        return cast(bytes, self._parsed.content_stream().read())


class RecordWriter:
    """Appends records to an open file; once a call returns, its record survives the end of this process."""

    def __init__(self, file: IO[bytes]) -> None:
        self._writer = WARCWriter(file, gzip=True, warc_version="1.1")

    def write_warcinfo(self, filename: str, facts: dict[str, str]) -> None:
        """Write `facts` as lines `name: value`."""
        one_line = {name: " ".join(value.split()) for name, value in facts.items()}
        self._writer.write_record(self._writer.create_warcinfo_record(filename, one_line))

    def write_page(self, page: Page) -> None:
        self._write("response", page, f"{page.status} {HTTPStatus(page.status).phrase}", page.body, {})

    def write_revisit(self, page: Unchanged, original: Place, fetched_at: datetime) -> None:
        """Record that `page` is the same as at `original`, a response in this folder, fetched at `fetched_at`."""
        refers_to = {
            "WARC-Profile": _NOT_MODIFIED,
            "WARC-Refers-To-Target-URI": page.url,
            "WARC-Refers-To-Date": fetched_at.strftime(_DATE),
            _IN_FILE: original.path.name,
            _AT_OFFSET: str(original.offset),
        }
        self._write("revisit", page, "304 Not Modified", b"", refers_to)

    def write_metadata(self, uri: str, content: bytes) -> None:
        """Write JSON about the file."""
        record = self._writer.create_warc_record(
            uri,
            "metadata",
            payload=BytesIO(content),
            length=len(content),
            warc_content_type="application/json",
            warc_headers_dict={"WARC-Date": datetime.now(UTC).strftime(_DATE)},
        )
        self._writer.write_record(record)

    def _write(self, kind: str, page: Page | Unchanged, status: str, body: bytes, fields: dict[str, str]) -> None:
        record = self._writer.create_warc_record(
            page.url,
            kind,
            payload=BytesIO(body),
            length=len(body),
            http_headers=StatusAndHeaders(status, list(page.headers), protocol="HTTP/1.1"),
            warc_headers_dict={"WARC-Date": page.fetched_at.strftime(_DATE), _KIND: page.kind, **fields},
        )
        self._writer.write_record(record)


def facts_of(record: Record) -> dict[str, str]:
    """The facts that `write_warcinfo` wrote."""
    return dict(line.split(": ", 1) for line in record.body().decode().splitlines())


def records(path: Path) -> Iterator[Record]:
    """Every record of a file in order, each verified before it is yielded.

    Raises:
        PermanentSourceError: at the first truncated or damaged record, after the records before it were yielded.
    """
    try:
        with path.open("rb") as file:
            for offset, end, content in _members(file):
                yield Record(Place(path, offset), end, content)
    except (OSError, EOFError, zlib.error) as error:
        raise PermanentSourceError(str(path), f"is damaged ({error}). Crawl it again.") from error


def page_at(place: Place) -> Page:
    """The page of the response at `place`.

    Raises:
        PermanentSourceError: the file is gone or damaged, or there is no response at that place.
    """
    try:
        with place.path.open("rb") as file:
            file.seek(place.offset)
            offset, end, content = next(_members(file), (place.offset, place.offset, b""))
    except (OSError, EOFError, zlib.error) as error:
        raise PermanentSourceError(str(place.path), f"has no page at {place.offset} ({error})") from error
    record = Record(Place(place.path, offset), end, content)
    if not content or record.type != "response":
        raise PermanentSourceError(str(place.path), f"has no page at {place.offset}")
    return record.page()


def _members(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """(offset, end, content) of each gzip member from the current position of the file. Needed because warcio would
    silently return a truncated record. Raises EOFError and zlib.error."""
    offset, rest = file.tell(), b""
    while True:
        inflate, content, size = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), bytearray(), 0
        while not inflate.eof:
            data = rest or file.read(_CHUNK_BYTES)
            rest = b""
            if not data and not size:
                return
            if not data:
                raise EOFError(f"it breaks off in the record at {offset}")
            size += len(data)
            content += inflate.decompress(data)
        rest = inflate.unused_data
        end = offset + size - len(rest)
        yield offset, end, bytes(content)
        offset = end
