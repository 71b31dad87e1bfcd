"""The JSON of the listed books in files that workers map: filed by another process, and only what lacks."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bookclub_platform.core.stock import SELECT_VERSIONED
from bookclub_platform.core.tables import books, loads, select_state
from bookclub_platform_tests.waiting import wait_for
from serving.books import book_files, book_filing, stock_files
from serving.books.book_bytes import BookBytes
from serving.books.book_files import NOTE, BookFiles, Note
from serving.books.book_filing import file_books
from serving.books.stock_files import StockFiles, newest_stock
from serving.database.catalogue import state_of
from serving.schemas.books import Book

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Shop:
    """A table of books, the files of their columns, and the folder in which they are filed."""

    def __init__(self, database_url: str, home: Path) -> None:
        self.url, self.folder, self.stock = database_url, home / "books", home / "stock"
        url = sa.make_url(database_url).set(drivername="postgresql+psycopg")
        options = {"options": "-c timezone=UTC"}
        self.engine = sa.create_engine(url, isolation_level="REPEATABLE READ", connect_args=options)
        self.files = BookFiles(self.folder, self.stock, database_url)

    def change(self, statement: sa.Insert | sa.Update | sa.Delete) -> None:
        with self.engine.begin() as connection:
            connection.execute(statement)
            noted = {"source": "shop", "category": "sea", "crawl_id": "1", "inserted": 1, "updated": 0, "delisted": 0}
            connection.execute(sa.insert(loads).values(noted))

    def add(self, *numbers: int) -> None:
        row = {
            "source": "shop", "category": "sea", "category_name": "Sea", "price": "10.50", "in_stock": True,
            "currency": "GBP", "url": "http://127.0.0.1/", "first_seen_at": NOW, "last_seen_at": NOW, "updated_at": NOW,
        }  # fmt: skip
        self.change(sa.insert(books).values([row | {"source_id": str(n), "title": f"Böok {n}"} for n in numbers]))

    @contextmanager
    def looking(self, files: BookFiles | None = None, epoch: int = 0) -> Iterator[BookFiles]:
        """As a worker does: the columns are read, then what is filed is mapped."""
        found, columns = files or self.files, StockFiles(self.stock)
        with columns.turn(), self.engine.connect() as connection:
            stock = columns.read(connection, state_of(connection.execute(select_state()).one_or_none()))
            found.follow(connection, stock, epoch)
        yield found

    def file(self) -> int:
        """As the other process does."""
        self.folder.mkdir(exist_ok=True)
        with self.looking(BookFiles(self.folder / "none", self.stock, self.url)), self.engine.connect() as connection:
            return file_books(self.folder, newest_stock(self.stock), connection)

    def expected(self) -> dict[int, tuple[int, bytes]]:
        """id -> version of the row and JSON, as the routes tell it."""
        with self.engine.connect() as connection:
            ids = list(connection.execute(sa.select(books.c.id)).scalars())
            rows = connection.execute(SELECT_VERSIONED, {"ids": ids}).all()
        return {row.id: (row.version, Book.model_validate(row).model_dump_json().encode()) for row in rows}

    def holds(self, files: BookFiles, epoch: int = 0) -> bool:
        """Whether every book is there as it is in the table."""
        told = self.expected()
        found = files.of(list(told), [version for version, _ in told.values()], epoch)
        assert set(found) <= {json for _, json in told.values()} | {None}
        return None not in found

    @property
    def note(self) -> Note:
        return Note.model_validate_json((self.folder / NOTE).read_bytes())


@pytest.fixture
def shop(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(stock_files, "LARGE_FROM", 1)
    monkeypatch.setattr(book_files, "_WORTH_IT", 10**9)  # but for tests of the other process none is started
    shop = Shop(database_url, tmp_path)
    with shop.engine.begin() as connection:
        connection.execute(sa.delete(books))
        connection.execute(sa.delete(loads))
    yield shop
    shop.files.close()
    shop.engine.dispose()


def test_every_listed_book_is_filed_as_the_routes_tell_it(shop: Shop) -> None:
    shop.add(*range(30))
    shop.change(sa.update(books).where(books.c.source_id == "7").values(delisted_at=NOW))
    assert shop.file() == 29
    with shop.looking() as files:
        told = shop.expected()
        assert shop.holds(files) and len(told) == 29
        book_id, (version, json) = next(iter(told.items()))
        assert files.of([book_id, 0, 10**12, book_id], [version, 1, 1, version + 1], 0) == [json, None, None, None]
        assert files.of([book_id], [version], epoch=1) == [None]  # another database may stand there since
    assert BookBytes(0, shop.files).of([book_id, 0], [version, 1], 0) == [json, None]


def test_only_what_changed_is_filed_and_what_was_mapped_stays_as_it_was(shop: Shop) -> None:
    shop.add(*range(30))
    shop.file()
    before = shop.expected()
    with shop.looking() as files:
        shop.change(sa.update(books).where(books.c.source_id == "3").values(price=99, title="Longer than it was"))
        shop.change(sa.update(books).where(books.c.source_id == "4").values(delisted_at=NOW))
        shop.add(40, 41)
        assert shop.file() == 3
        versions = [version for version, _ in before.values()]
        assert files.of(list(before), versions, 0) == [json for _, json in before.values()]
        assert not shop.holds(files)
    with shop.looking() as files:
        assert shop.holds(files)
    assert shop.file() == 0


def test_where_most_changed_a_new_file_is_begun_and_the_old_one_goes(shop: Shop) -> None:
    shop.add(*range(9))
    shop.file()
    first = shop.note.books
    shop.change(sa.update(books).where(books.c.source_id < "4").values(price=books.c.price + 1))
    assert shop.file() == 4 and shop.note.books == first
    shop.change(sa.update(books).values(price=books.c.price + 1))
    assert shop.file() == 9
    assert shop.note.books != first
    assert {path.name for path in shop.folder.iterdir()} == {NOTE, shop.note.books, shop.note.index}
    with shop.looking() as files:
        assert shop.holds(files)


def test_books_filed_of_another_future_of_the_database_are_not_used(shop: Shop) -> None:
    shop.add(*range(9))
    shop.file()
    with shop.engine.begin() as connection:
        connection.execute(sa.delete(loads).where(loads.c.id == int(shop.note.state[0])))
    with shop.looking() as files:
        assert not shop.holds(files)
    assert shop.file() == 9


def test_what_a_run_has_filed_that_was_ended_is_of_use_to_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book_filing, "_PART", 4)
    shop.add(*range(30))
    append, left = book_filing._append, iter(range(3))

    def ended(path: Path, begins: int, records: Any) -> Any:
        if next(left, None) is None:
            path.open("ab").write(b"half of a bo")
            raise OSError("ended")
        return append(path, begins, records)

    monkeypatch.setattr(book_filing, "_append", ended)
    with pytest.raises(OSError, match="ended"):
        shop.file()
    monkeypatch.setattr(book_filing, "_append", append)
    assert shop.file() == 30 - 3 * 4
    with shop.looking() as files:
        assert shop.holds(files)


@pytest.mark.parametrize("what", ["index", "books", "shorter books", "note"])
def test_a_damaged_file_is_not_used_and_made_anew(shop: Shop, what: str, caplog: pytest.LogCaptureFixture) -> None:
    shop.add(*range(9))
    shop.file()
    path = shop.folder / {"index": shop.note.index, "note": NOTE}.get(what, shop.note.books)
    damaged = bytearray(path.read_bytes())
    damaged[-20] ^= 1
    path.write_bytes(damaged[:-2] if what == "shorter books" else damaged)
    with shop.looking() as files:
        assert not shop.holds(files)
    assert what == "books" or "cannot be used" in caplog.text
    if what != "books":  # of one that is damaged Postgres is asked for the book
        assert shop.file() == 9
        with shop.looking() as files:
            assert shop.holds(files)


def test_on_a_full_disk_what_was_filed_before_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.add(*range(9))
    shop.file()
    shop.add(20)
    with monkeypatch.context() as patched, pytest.raises(OSError, match="of disk are free"):
        patched.setattr(book_filing, "_LEFT_FREE_BYTES", 2**60)
        shop.file()
    with shop.looking() as files:
        found = files.of(
            *zip(*[(book_id, version) for book_id, (version, _) in shop.expected().items()], strict=True), 0
        )
        assert found.count(None) == 1
    assert shop.file() == 1


def test_a_worker_has_them_filed_by_a_process_that_others_do_not_start_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book_files, "_WORTH_IT", 1)
    shop.add(*range(50))
    other = BookFiles(shop.folder, shop.stock, shop.url)
    with shop.looking(), shop.looking(other):
        filing = shop.files._filing  # whoever looks once it has ended forgets it
        assert filing is not None and other._filing is None

    def is_filed() -> bool:
        with shop.looking() as files, shop.looking(other):
            return shop.holds(files) and shop.holds(other)

    wait_for(is_filed, 20)
    assert filing.wait(20) == 0


def test_the_process_that_files_ends_with_the_one_that_started_it(shop: Shop) -> None:
    shop.add(1)
    command = [sys.executable, "-m", "serving.books.book_filing", str(shop.folder), str(shop.stock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        # A server that takes connections and says nothing: by itself it would wait.
        with socket.create_server(("127.0.0.1", 0)) as silent:
            process.stdin.write(f"postgresql://a:b@127.0.0.1:{silent.getsockname()[1]}/c\n".encode())
            process.stdin.close()
            assert process.wait(20) == 0
