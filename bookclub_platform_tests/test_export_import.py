"""export.py and ingest.py: what goes out of one database comes into another as it was, or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from pydantic import TypeAdapter

from bookclub_platform import export
from bookclub_platform.core import tables
from bookclub_platform.core.book import Book
from bookclub_platform.core.database import migrate
from bookclub_platform.export import Format, Name, export_chunks, snapshot, write_file
from bookclub_platform.ingest import FileRefused, Ingested, ingest
from bookclub_platform_tests.test_tables import BOOK, NOON, load_category

pytestmark = pytest.mark.both_servers

AWKWARD = [
    '=HYPERLINK("http://evil")',
    "+1",
    "-1",
    "@SUM(A1)",
    "\tTab",
    "\rReturn",
    "'quoted",
    "＝wide",
    'He said "no", twice; and\nleft\r\nagain',
    "\\. \\N \\x41 \\",
    "\\.",
    "漢字 🦊 é e\u0301 \u202eright to left",
    " NULL ",
    "",
]
BOOKS = [
    replace(
        BOOK,
        source_id=f"upc-{n}",
        upc=None if n % 2 else f"00{n}",
        title=text or "Untitled",
        description=text if n % 3 else None,
        url=f"http://shop/{n}",
        price=Decimal(n) / 7 // Decimal("0.01") / 100,
        rating=None if n % 4 == 0 else 3,
        seen_at=NOON + timedelta(microseconds=n),
    )
    for n, text in enumerate(AWKWARD, 1)
] + [replace(BOOK, source_id=f"upc-{n}", url=f"http://shop/{n}") for n in range(90, 100)]


@pytest.fixture(scope="module")
def full(database_url: str) -> str:
    """A database with awkward books, one of which is delisted."""
    with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as connection:
        load(connection, BOOKS, NOON, "crawl-1")
        load(connection, BOOKS[1:], NOON + timedelta(days=1), "crawl-2")
        others = {"book_id": [2, 2, 3], "category": ["asia", "=europe", "asia"], "last_seen_at": [NOON] * 3}
        others["category_name"] = ["Asia", 'The "old", one\n', "漢字"]
        rows = [dict(zip(others, row, strict=True)) for row in zip(*others.values(), strict=True)]
        connection.execute(sa.insert(tables.book_categories), rows)
    return database_url


def load(connection: sa.Connection, seen: list[Book], at: object, crawl: str) -> None:
    load_category(connection, "shop", "travel", crawl, seen, [], at)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def target(database_url: str) -> Iterator[str]:
    """Another migrated database on the same server."""
    server = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    url = sa.make_url(database_url).set(database="target").render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(sa.text("CREATE DATABASE target"))
        migrate(url)
        yield url
        connection.execute(sa.text("DROP DATABASE target WITH (FORCE)"))


@pytest.fixture
def empty(target: str) -> Iterator[str]:
    """`target`, emptied again after each test."""
    yield target
    with sa.create_engine(target, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("TRUNCATE bookclub.books, bookclub.loads RESTART IDENTITY CASCADE"))


def exported(url: str, name: Name, format: Format, **options: bool) -> bytes:
    with snapshot(url) as connection:
        return b"".join(export_chunks(connection, name, format, **options))


def put(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def take_in(url: str, path: Path, is_spreadsheet_safe: bool = False) -> Ingested:
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        return ingest(connection, path, is_spreadsheet_safe=is_spreadsheet_safe)


def content(url: str, table: sa.Table = tables.books) -> list[tuple[object, ...]]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(table).order_by(*table.primary_key))]


def version(url: str) -> int:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return connection.execute(tables.select_data_version()).scalar_one()


@pytest.mark.parametrize("format", get_args(Format))
def test_what_is_exported_comes_into_another_database_as_it_was(
    full: str, empty: str, tmp_path: Path, format: Format
) -> None:
    books = put(tmp_path, f"books.{format}", exported(full, "books", format, with_delisted=True))
    seen = put(tmp_path, f"seen.{format}", exported(full, "observations", format, with_delisted=True))
    assert take_in(empty, books) == Ingested("books", len(BOOKS), 0)
    assert take_in(empty, seen) == Ingested("observations", 2 * len(BOOKS) - 1, 0)
    assert content(empty) == content(full)
    assert content(empty, tables.book_observations) == content(full, tables.book_observations)
    assert content(empty, tables.book_categories) == content(full, tables.book_categories) != []

    before = version(empty)
    assert before > 0
    assert take_in(empty, books) == Ingested("books", 0, len(BOOKS))
    assert take_in(empty, seen).inserted == 0
    assert version(empty) == before

    with sa.create_engine(empty, poolclass=sa.NullPool).begin() as connection:
        load(connection, [replace(BOOK, source_id="new", url="http://shop/new")], NOON, "crawl-3")
    assert content(empty)[-1][0] > content(full)[-1][0]  # type: ignore[operator]


@pytest.mark.parametrize("format", get_args(Format))
def test_only_listed_books_and_their_sightings_are_exported_unless_all_are_asked_for(full: str, format: Format) -> None:
    counts = {"csv": rows_of_csv, "ndjson": bytes.splitlines, "parquet": rows_of_parquet}[format]
    assert len(counts(exported(full, "books", format))) == len(BOOKS) - 1
    assert len(counts(exported(full, "books", format, with_delisted=True))) == len(BOOKS)
    assert len(counts(exported(full, "observations", format))) == 2 * len(BOOKS) - 2


def rows_of_csv(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def rows_of_parquet(data: bytes) -> list[dict[str, Any]]:
    return list(pq.read_table(io.BytesIO(data)).to_pylist())


def test_other_programs_read_the_formats_with_their_types(full: str) -> None:
    row = next(row for row in rows_of_csv(exported(full, "books", "csv")) if row["title"] == "+1")
    assert (row["in_stock"], row["price"], row["upc"]) == ("true", "0.28", "002")
    lines = exported(full, "books", "ndjson").decode().splitlines()
    line = next(line for line in lines if line.startswith(f'{{"id":{row["id"]},'))
    assert '"price":0.28,' in line and '"in_stock":true,' in line
    assert json.loads(line)["first_seen_at"] == "2026-11-21T12:00:00.000002Z" == row["first_seen_at"]
    kept = next(row for row in rows_of_parquet(exported(full, "books", "parquet")) if row["title"] == "+1")
    assert (kept["price"], kept["first_seen_at"]) == (Decimal("0.28"), NOON + timedelta(microseconds=2))


@pytest.mark.parametrize("is_spreadsheet_safe", [False, True])
def test_lines_of_csv_end_as_rfc_4180_has_it_and_those_of_texts_stay_as_they_are(
    full: str, is_spreadsheet_safe: bool
) -> None:
    text = exported(full, "books", "csv", is_spreadsheet_safe=is_spreadsheet_safe).decode("utf-8-sig")
    outside = "".join(text.split('"')[::2])  # a quote within a text is two
    assert outside.count("\r\n") == outside.count("\n") == len(BOOKS) and text.endswith("\r\n")
    assert "twice; and\nleft\r\nagain" in text


def test_a_moment_is_written_as_the_api_writes_it(full: str) -> None:
    moments = [NOON, NOON + timedelta(microseconds=500_000), NOON + timedelta(microseconds=10)]
    with sa.create_engine(full, poolclass=sa.NullPool).connect() as connection:
        first = [tables.books.c.id == at for at in (2, 3, 4)]
        for where, moment in zip(first, moments, strict=True):
            connection.execute(sa.update(tables.books).where(where).values(first_seen_at=moment, last_seen_at=moment))
        connection.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
        with closing(export_chunks(connection, "books", "ndjson")) as chunks:
            rows = [json.loads(line) for line in b"".join(chunks).splitlines()]
    written = TypeAdapter(datetime)
    assert [row["first_seen_at"] for row in rows if row["id"] in {2, 3, 4}] == [
        written.dump_python(moment, mode="json") for moment in moments
    ]
    assert {other["last_seen_at"] for row in rows for other in row["also_in"] or []} == {"2026-11-21T12:00:00Z"}
    assert all(row["delisted_at"] is None for row in rows)


def test_a_spreadsheet_safe_csv_has_no_formula_and_comes_back_as_it_was(full: str, empty: str, tmp_path: Path) -> None:
    data = exported(full, "books", "csv", with_delisted=True, is_spreadsheet_safe=True)
    cells = [cell for row in rows_of_csv(data) for cell in row.values()]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝"))]
    assert data.startswith("\ufeff".encode())
    take_in(empty, put(tmp_path, "books.csv", data), is_spreadsheet_safe=True)
    assert content(empty) == content(full)
    assert content(empty, tables.book_categories) == content(full, tables.book_categories)


def test_a_file_of_a_release_before_other_categories_still_comes_in_and_a_newer_one_adds_them(
    full: str, empty: str, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in exported(full, "books", "ndjson", with_delisted=True).splitlines()]
    old = [{name: value for name, value in row.items() if name != "also_in"} for row in rows]
    header, *_ = exported(full, "books", "csv", with_delisted=True).decode().splitlines()
    assert header.endswith(",delisted_at,also_in"), "what is added is last: who reads by place reads on"
    take_in(empty, put(tmp_path, "old.ndjson", "\n".join(map(json.dumps, old))))
    assert content(empty) == content(full) and content(empty, tables.book_categories) == []
    newer = put(tmp_path, "newer.ndjson", "\n".join(map(json.dumps, rows)))
    assert take_in(empty, newer) == Ingested("books", 0, len(BOOKS))
    assert content(empty, tables.book_categories) == content(full, tables.book_categories)


@pytest.mark.parametrize(
    ("also_in", "told"),
    [
        ({"category": "asia"}, "line 3, .*also_in"),
        ([{"category": "asia"}], "also_in of the book with id 4 needs"),
        ([{"category": "", "category_name": "A", "last_seen_at": "2026-01-01"}], "id 4 needs"),
        ([{"category": "a", "category_name": "A", "last_seen_at": "infinity"}], "id 4 needs"),
        ([{"category": "a", "category_name": "A", "last_seen_at": "soon"}], "soon"),
        (["asia"], "jsonb_to_recordset|object"),
        ([{"category": "a\0", "category_name": "A", "last_seen_at": "2026-01-01"}], "line 3, field also_in"),
        ([1.5], "jsonb_to_recordset|object"),
    ],
)
def test_other_categories_that_are_none_refuse_the_file(
    full: str, empty: str, tmp_path: Path, also_in: object, told: str
) -> None:
    with pytest.raises(FileRefused, match=told):
        take_in(empty, put(tmp_path, "books.ndjson", spoilt(full, "ndjson", also_in=also_in)))
    assert content(empty) == []


def test_an_export_is_one_moment_whatever_commits_meanwhile(full: str) -> None:
    with snapshot(full) as connection:
        count = connection.scalar(tables.select_count(tables.select_books()))
        with sa.create_engine(full, poolclass=sa.NullPool).begin() as other:
            other.execute(sa.text("UPDATE bookclub.books SET delisted_at = now() WHERE source_id = 'upc-99'"))
        try:
            assert len(b"".join(export_chunks(connection, "books", "ndjson")).splitlines()) == count
        finally:
            with sa.create_engine(full, poolclass=sa.NullPool).begin() as other:
                other.execute(sa.text("UPDATE bookclub.books SET delisted_at = NULL WHERE source_id = 'upc-99'"))


@pytest.mark.parametrize("format", get_args(Format))
def test_an_export_that_is_stopped_early_gives_the_connection_back(
    full: str, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "CHUNK_BYTES", 1)

    def stop_early() -> None:
        with snapshot(full) as connection, closing(export_chunks(connection, "books", format)) as chunks:
            next(chunks)
            raise BrokenPipeError

    done: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            stop_early()
        except BrokenPipeError as error:
            done.put(error)

    threading.Thread(target=run, daemon=True).start()  # what hangs must not hang the tests
    assert isinstance(done.get(timeout=10), BrokenPipeError)


def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is gone")

    path = put(tmp_path, "books.csv", "before")
    with pytest.raises(OSError, match="the disk is gone"):
        write_file(path, broken())
    assert path.read_text() == "before"
    assert write_file(path, [b"af", b"ter"]) == 5
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("books.csv", "after")]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    assert write_file(path, [b"through"]) == 7
    assert os.read(reader, 10) == b"through"
    os.close(reader)
    assert path.is_fifo()


def spoilt(full: str, format: Format, **changes: object) -> bytes:
    """The exported books with the third row changed."""
    rows = [json.loads(line) for line in exported(full, "books", "ndjson").splitlines()]
    rows[2] |= changes
    if format == "ndjson":
        return "\n".join(map(json.dumps, rows)).encode()
    for row in rows:
        row["also_in"] = row["also_in"] and json.dumps(row["also_in"])
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"price": "dear"}, "field price, .*dear"),
        ({"price": -1}, "ck_books_price"),
        ({"price": "NaN"}, "price_range"),
        ({"first_seen_at": "-infinity"}, "first_seen_at_is_finite"),
        ({"rating": 6}, "ck_books_rating"),
        ({"first_seen_at": "yesterday evening"}, "field first_seen_at"),
        ({"id": 2}, r"\(id\)=\(2\)"),
        ({"id": 2**63}, "field id, "),
        ({"currency": "POUND"}, "field currency, "),
    ],
)
@pytest.mark.parametrize("format", ["csv", "ndjson"])
def test_a_bad_row_is_told_by_its_line_and_nothing_is_imported(
    full: str, empty: str, tmp_path: Path, format: Format, changes: dict[str, object], told: str
) -> None:
    path = put(tmp_path, f"books.{format}", spoilt(full, format, **changes))
    line = 4 if format == "csv" else 3
    with pytest.raises(FileRefused, match=rf"books\.{format}: line {line}, .*{told}"):
        take_in(empty, path)
    assert content(empty) == []
    assert version(empty) == 0


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("books.ndjson", '{"id": 1', "line 1 is no JSON"),
        ("books.ndjson", "[1]\n", "line 1 is no JSON object"),
        (
            "books.ndjson",
            '{"id": 1, "colour": "red"}\n',
            "unknown, of a newer release perhaps: colour; missing: source",
        ),
        (
            "seen.ndjson",
            '{"book_id":1,"crawl_id":"a\\u0000","seen_at":"2026-01-01","price":1}\n',
            "line 1, field crawl_id: .*NUL",
        ),
        (
            "seen.ndjson",
            '{"book_id":1,"crawl_id":["a"],"seen_at":"2026-01-01","price":1}\n',
            "line 1, field crawl_id: a list",
        ),
        (
            "seen.ndjson",
            '{"book_id":1,"crawl_id":"a","seen_at":"2026-01-01","price":NaN}\n',
            "line 1 .*NaN is no number",
        ),
        (
            "seen.csv",
            "book_id,crawl_id,seen_at,price\n77,a,2026-01-01T00:00:00Z,1\n",
            "book_id 77 .* import the books first",
        ),
        ("seen.csv", "book_id,crawl_id,seen_at,price\n77,a\n", "line 2, missing data for column .seen_at"),
        ("seen.csv", b"book_id,crawl_id,seen_at,price\n77,\xff,2026-01-01,1\n", "line 2, .*UTF8"),
        ("empty.csv", "", "missing: "),
        ("books.parquet", "no parquet", "is no Parquet file"),
        ("books.xlsx", "", r"must end in one of \.csv"),
    ],
)
def test_a_file_that_is_none_is_refused_with_the_reason(
    empty: str, tmp_path: Path, name: str, text: bytes | str, told: str
) -> None:
    with pytest.raises(FileRefused, match=told):
        take_in(empty, put(tmp_path, name, text))


@pytest.mark.parametrize("wrong", [0, -5, 2**53 + 1, 2**63 - 1])
def test_an_id_after_which_the_table_could_give_no_other_is_refused(
    full: str, empty: str, tmp_path: Path, wrong: int
) -> None:
    numbered = put(tmp_path, "books.ndjson", spoilt(full, "ndjson", id=wrong))
    with pytest.raises(FileRefused, match=r"line 3, .*id_from_1_to_2"):
        take_in(empty, numbered)


def test_a_row_that_contradicts_the_table_refuses_the_file(full: str, tmp_path: Path) -> None:
    before = content(full)
    third = json.loads(exported(full, "books", "ndjson").splitlines()[2])
    key = rf"source_id {third['source_id']} .*"
    dearer = put(tmp_path, "books.ndjson", spoilt(full, "ndjson", price=99.5))
    with pytest.raises(FileRefused, match=rf"price is 99\.50, there {third['price']}"):
        take_in(full, dearer)
    renumbered = put(tmp_path, "again.ndjson", spoilt(full, "ndjson", id=4000))
    with pytest.raises(FileRefused, match=key + rf"id is 4000, there {third['id']}"):
        take_in(full, renumbered)
    assert content(full) == before
