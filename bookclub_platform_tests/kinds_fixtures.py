"""One made-up catalogue as every kind of source has it, each behind a real server on loopback or in a real file."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bookclub_platform.core.settings import Settings
from bookclub_platform.sandbox import generate, running
from bookclub_platform.sources import Source, sources
from bookclub_platform_tests.local_http import Handler, served

BOOKS, SEED = 25, 3
PER_PAGE = 10
Row = dict[str, Any]
# What a path is answered with: the body, and headers more.
Answer = Callable[[str, dict[str, list[str]]], tuple[bytes, dict[str, str]] | None]

needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")), reason="no Chromium with its driver here"
)
FIELDS = """
  fields: {source_id: ISBN, title: Title, price: Price, category: Genre, rating: Stars, availability: Stock, description: About}
  constants: {currency: GBP}
"""  # noqa: E501


def rows(books: int = BOOKS) -> list[Row]:
    """The catalogue as somebody's spreadsheet has it."""
    catalogue = generate(books, SEED)
    genres = dict(catalogue.genres)
    return [
        {
            "ISBN": book.upc,
            "Title": book.title,
            "Price": book.price_pence / 100,
            "Genre": genres[book.genre].name,
            "Stars": book.rating,
            "Stock": book.stock,
            "About": catalogue.description(book) or None,
        }
        for book in catalogue.books
    ]


def as_csv(table: Sequence[Row], delimiter: str = ",") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(table[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().encode()


def as_json_lines(table: Sequence[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()


def as_parquet(table: Sequence[Row]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(table)), buffer)
    return buffer.getvalue()


@contextlib.contextmanager
def answering(answer: Answer) -> Iterator[str]:
    """A server on loopback -> its address."""

    class Answering(Handler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            found = answer(parts.path, parse_qs(parts.query))
            body, headers = found if found is not None else (b"", {})
            self.say(404 if found is None else 302 if "Location" in headers else 200, body, **headers)

    with served(Answering) as address:
        yield address


def api(table: Sequence[Row], per_page: int = PER_PAGE) -> Answer:
    """The rows as a web API, paged in four ways: /page, /cursor, /url, /link."""

    def answer(path: str, query: dict[str, list[str]]) -> tuple[bytes, dict[str, str]] | None:
        if path not in {"/page", "/cursor", "/url", "/link"}:
            return None
        first = int(query.get("at", query.get("page", ["0"]))[0]) * (per_page if path == "/page" else 1)
        items = [{"id": row["ISBN"], "data": {"book": row}} for row in table[first : first + per_page]]
        after = first + per_page if first + per_page < len(table) else None
        link = f"{path}?at={after}" if after else None
        body = {"found": {"items": items, "total": len(table)}, "meta": {"next": after, "link": link}}
        headers = {"Link": f'</link>; rel="first", <{link}>; rel="next"'} if link else {"Link": '</link>; rel="prev"'}
        return json.dumps(body).encode(), {"Content-Type": "application/json"} | headers

    return answer


API_FIELDS = """
  items: found.items
  total: found.total
  fields: {source_id: id, title: data.book.Title, price: data.book.Price, category: data.book.Genre,
           rating: data.book.Stars, availability: data.book.Stock, description: data.book.About}
  constants: {currency: GBP}
"""
PAGINGS = {
    "page": "{by: page, parameter: page, first: 0}",
    "cursor": "{by: cursor, field: meta.next, parameter: at}",
    "url": "{by: url, field: meta.link}",
    "link": "{by: link_header}",
}
TABLES = {"csv": as_csv, "jsonl": as_json_lines, "parquet": as_parquet}


def source_of(entry: str, folder: Path) -> Source:
    """The source that a sources.yaml with this one entry (without its name) gives."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sources.yaml"
    path.write_text("sources:\n- name: shelf\n" + "\n".join(f"  {line.strip()}" for line in entry.splitlines() if line))
    (source,) = sources(Settings(sources=path, files=folder))
    return source


@contextlib.contextmanager
def having(kind: str, folder: Path) -> Iterator[tuple[Source, int]]:
    """A source of that kind with the catalogue in it, and how many books that is: a browser takes its time."""
    (name, _, way), books = kind.partition(" "), BOOKS
    with contextlib.ExitStack() as servers:
        if name in {"books_toscrape", "rendered_shop"}:
            books = 6 if name == "rendered_shop" else BOOKS
            address = servers.enter_context(running(books, SEED, is_script=name == "rendered_shop"))
            entry = f"kind: {name}\naddress: {address}"
        elif name == "table_file" and way.startswith("web"):
            body = TABLES[way.split()[1]](rows())
            address = servers.enter_context(answering(lambda path, _: (body, {}) if path == "/export" else None))
            entry = f"kind: table_file\naddress: {address}/export\nformat: {way.split()[1]}{FIELDS}"
        elif name == "table_file":
            (folder / f"books.{way}").write_bytes(TABLES[way](rows()))
            entry = f"kind: table_file\naddress: books.{way}{FIELDS}"
        else:
            address = servers.enter_context(answering(api(rows())))
            entry = f"kind: json_api\naddress: {address}/{way}\nnext: {PAGINGS[way]}{API_FIELDS}"
        yield source_of(entry, folder), books
