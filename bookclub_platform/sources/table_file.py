"""A table in a file -> rows: CSV, JSON Lines or Parquet, from a URL (a published Google Sheet) or on this machine.

    - name: reading_list
      kind: table_file
      address: reading_list.csv             # below BOOKCLUB_FILES, or http(s)://...
      fields: {source_id: ISBN, title: Title, price: Price, category: Genre}
      constants: {currency: USD}

The file is stored as received, as one raw page. A row without title, price or key is rejected with its line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bookclub_platform.core.book import Category, RawBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._config import web_address
from bookclub_platform.sources._contract import CrawlFetcher, Listing, Page, PageFetcher, RejectedRow
from bookclub_platform.sources._local_files import LocalFiles, file_address
from bookclub_platform.sources._mapping import RowReader, RowsConfig
from bookclub_platform.sources._politeness import Patience
from bookclub_platform.sources._web import Web

Format = Literal["csv", "jsonl", "parquet"]
# A row as in the file, its place for people, and its place as a fragment of the address (RFC 7111).
Row = tuple[Any, str, str]
_PARQUET = b"PAR1"
_ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}


def _file_or_web_address(address: str) -> str:
    if "://" in address:
        return web_address(address)
    if Path(address).is_absolute() or ".." in Path(address).parts:
        raise ValueError("must be a web address, or a path below the folder BOOKCLUB_FILES, without ..")
    return address


def _codec(name: str) -> str:
    try:
        "".encode(name)
    except LookupError as error:
        raise ValueError("is no encoding that Python knows, such as utf-8 or windows-1252") from error
    return name


class Config(RowsConfig):
    """`format`: by the address's ending where it is not set. `max_bytes`: of the file; more is refused."""

    kind: Literal["table_file"]
    address: Annotated[str, AfterValidator(_file_or_web_address)]
    format: Format | None = None
    encoding: Annotated[str, AfterValidator(_codec)] = "utf-8"
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    max_bytes: Annotated[int, Field(gt=0)] = 256 * 1024 * 1024

    @model_validator(mode="after")
    def _has_format(self) -> Config:
        if self.format is None and self.ending not in _ENDINGS:
            raise ValueError(f"format: is missing, and the address ends in none of {', '.join(_ENDINGS)}")
        return self

    @property
    def ending(self) -> str:
        return Path(urlsplit(self.address).path).suffix.lower()


def _is_whole(page: Page) -> bool:
    """Whether the file is complete; only Parquet marks its end."""
    return not page.body.startswith(_PARQUET) or page.body.endswith(_PARQUET)


def build(config: Config, settings: Settings) -> TableFile:
    web = None
    if "://" in config.address:
        web = Web.of(config, settings, Patience(max_bytes=config.max_bytes, page_timeout_s=600), _is_whole)
    return TableFile(
        name=config.name,
        address=config.address if web else file_address(config.address),
        format=config.format or _ENDINGS[config.ending],
        encoding=config.encoding,
        delimiter=config.delimiter or ("\t" if config.ending == ".tsv" else ","),
        reader=RowReader.of(config),
        web=web,
        files=LocalFiles(settings.files, config.max_bytes),
    )


@dataclass(frozen=True, slots=True)
class TableFile:
    """One table. `web` is None for a file on this machine, which is then read through `files`."""

    name: str
    address: str
    format: Format
    encoding: str
    delimiter: str
    reader: RowReader
    web: Web | None
    files: LocalFiles
    has_categories: bool = False

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        return self.web.open() if self.web is not None else self.files.open()

    def cover_fetcher(self) -> AbstractContextManager[PageFetcher] | None:
        return self.web.open() if self.web is not None else None

    def categories(self, fetcher: PageFetcher) -> list[Category]:
        return [self.reader.whole(self.address)]

    def listing(self, page: Page) -> Listing:
        return Listing(book_urls=(), next_url=None, expected=None, rows=sum(1 for _ in self._table(page)))

    def rows(self, page: Page, category: Category) -> Iterator[RawBook | RejectedRow]:
        for row, place, fragment in self._table(page):
            if isinstance(row, RejectedRow):
                yield replace(row, url=f"{page.url}#{fragment}")
            else:
                yield self.reader.read(row, place, page.url, fragment, page.fetched_at)

    def _table(self, page: Page) -> Iterator[Row]:
        readers: dict[Format, Callable[[Page], Iterator[Row]]] = {
            "csv": self._csv,
            "jsonl": self._json_lines,
            "parquet": self._parquet,
        }
        return readers[self.format](page)

    def _csv(self, page: Page) -> Iterator[Row]:
        reader = csv.reader(io.StringIO(self._text(page), newline=""), delimiter=self.delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            self._check_columns(page, header)
            before = reader.line_num
            for cells in reader:
                line, before = before + 1, reader.line_num
                place, fragment = f"line {line}", f"line={line}"
                if not any(cells):
                    continue
                if len(cells) > len(header):
                    reason = f"{place}: has {len(cells)} cells under {len(header)} columns"
                    yield RejectedRow(page.url, reason), place, fragment
                else:
                    yield dict(zip(header, cells, strict=False)), place, fragment
        except csv.Error as error:
            raise PageRejected(page.url, f"is no CSV from line {reader.line_num} on: {error}") from error

    def _json_lines(self, page: Page) -> Iterator[Row]:
        for line, text in enumerate(self._text(page).split("\n"), 1):
            place, fragment = f"line {line}", f"line={line}"
            if not text.strip():
                continue
            try:
                yield json.loads(text), place, fragment
            except (ValueError, RecursionError) as error:
                yield RejectedRow(page.url, f"{place}: is no JSON: {error}"), place, fragment

    def _parquet(self, page: Page) -> Iterator[Row]:
        import pyarrow as pa  # 0.2 s and 40 MB that no other kind needs
        import pyarrow.parquet as pq

        try:
            file = pq.ParquetFile(pa.BufferReader(page.body))
            self._check_columns(page, file.schema_arrow.names)
            row = 0
            for batch in file.iter_batches(batch_size=1000):
                for fields in batch.to_pylist():
                    row += 1
                    yield fields, f"row {row}", f"row={row}"
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the last: a date after 9999
            raise PageRejected(page.url, f"is no Parquet file that can be read: {error}") from error

    def _text(self, page: Page) -> str:
        try:
            return page.body.decode(self.encoding).removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            line = page.body.count(b"\n", 0, error.start) + 1
            reason = f"line {line} is not {self.encoding} ({error.reason}): set `encoding` in sources.yaml"
            raise PageRejected(page.url, reason) from error

    def _check_columns(self, page: Page, columns: list[str]) -> None:
        """Reject a file that lacks a column: a renamed column must not result in a thousand rows without titles."""
        needed = self.reader.fields.values()
        missing = [path for path in needed if path not in columns and path.partition(".")[0] not in columns]
        if missing:
            shown = ", ".join(columns[:20]) or "none"
            raise PageRejected(page.url, f"has no column {', '.join(missing)}; its columns: {shown}"[:500])
