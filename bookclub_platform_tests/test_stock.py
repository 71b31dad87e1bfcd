"""The listed books as columns: read anew, by what changed since, or from the files that workers share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from bookclub_platform.core.stock import Mark, Stock, read_changes, read_stock
from bookclub_platform.core.tables import books, loads, select_state
from serving.books import stock_files
from serving.books.stock_files import StockFiles
from serving.database.catalogue import state_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# With SQL's own functions that a role without rights must be able to call.
pytestmark = pytest.mark.both_servers


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url, isolation_level="REPEATABLE READ")
    with engine.begin() as connection:
        connection.execute(sa.delete(books))
        connection.execute(sa.delete(loads))
    yield engine
    engine.dispose()


def add(engine: sa.Engine, *numbers: int) -> None:
    row = {
        "source": "shop", "category": "travel", "category_name": "Travel", "price": 10, "in_stock": True,
        "currency": "GBP", "url": "http://127.0.0.1/", "first_seen_at": NOW, "last_seen_at": NOW, "updated_at": NOW,
    }  # fmt: skip
    rows = [row | {"source_id": str(number), "title": f"Book {number}"} for number in numbers]
    with engine.begin() as connection:
        connection.execute(sa.insert(books), rows)
        note(connection)


def note(connection: sa.Connection) -> None:
    values = {"source": "shop", "category": "travel", "crawl_id": "1", "inserted": 1, "updated": 0, "delisted": 0}
    connection.execute(sa.insert(loads).values(values))


def change(engine: sa.Engine, numbers: list[int], **values: object) -> None:
    with engine.begin() as connection:
        connection.execute(sa.update(books).where(books.c.source_id.in_(map(str, numbers))).values(**values))
        note(connection)


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    with engine.connect() as connection:
        connection.execute(sa.text("SET TRANSACTION READ ONLY"))
        yield connection


def whole(engine: sa.Engine) -> Stock:
    with reading(engine) as connection:
        return read_stock(connection)


def same(found: Stock, expected: Stock) -> None:
    for name, column in expected.columns.items():
        assert found.columns[name].tolist() == column.tolist(), name
        assert found.columns[name].dtype == column.dtype
    assert found.whole == expected.whole


def from_files(files: StockFiles, engine: sa.Engine, before: Stock | None = None) -> Stock:
    with files.turn(), reading(engine) as connection:
        return files.read(connection, state_of(connection.execute(select_state()).one_or_none()), before)


def is_mapped(stock: Stock) -> bool:
    return all(isinstance(column.base, np.memmap) for column in stock.columns.values())


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stock_files, "LARGE_FROM", 1)


def test_whatever_was_written_since_the_changes_give_what_reading_all_gives(engine: sa.Engine) -> None:
    draw = random.Random(3)
    add(engine, *range(20))
    known, count = whole(engine), 20
    for _ in range(25):
        some = draw.sample(range(count), 3)
        match draw.randrange(5):
            case 0:
                add(engine, count, count + 1)
                count += 2
            case 1:
                change(engine, some, delisted_at=NOW)
            case 2:
                change(engine, some, delisted_at=None, price=draw.randrange(99))
            case 3:
                change(engine, some, title=f"Called {count}", rating=draw.randrange(1, 6), category=f"c{count}")
                change(engine, some[:1], stock=count, currency="EUR", updated_at=NOW + timedelta(seconds=count))
            case 4:
                with engine.begin() as connection:
                    connection.execute(sa.delete(books).where(books.c.source_id == str(some[0])))
        with reading(engine) as connection:
            known = read_changes(connection, known)
        same(known, whole(engine))


def test_what_a_transaction_writes_that_runs_while_others_end_is_not_missed(engine: sa.Engine) -> None:
    add(engine, *range(5))
    with engine.connect() as slow:
        slow.execute(sa.update(books).where(books.c.source_id == "2").values(price=77))
        change(engine, [4], price=44)
        known = whole(engine)
        assert 77 not in known.price.tolist() and 44 in known.price.tolist()
        slow.commit()
    with reading(engine) as connection:
        assert 77 in read_changes(connection, known).price.tolist()


def test_where_nothing_was_written_the_changes_are_none(engine: sa.Engine) -> None:
    add(engine, *range(5))
    known = whole(engine)
    with reading(engine) as connection:
        assert read_changes(connection, known) is known


@pytest.mark.parametrize("other", ["another table", "a future"])
def test_the_stock_of_another_database_is_read_anew(engine: sa.Engine, other: str) -> None:
    add(engine, *range(5))
    known = whole(engine)
    assert known.mark is not None
    mark = Mark("1/1", known.mark.transaction) if other == "another table" else known.mark._replace(transaction=10**6)
    with reading(engine) as connection:
        found = read_changes(connection, known._replace(ids=known.ids + 100, mark=mark))
    same(found, whole(engine))


@pytest.mark.usefixtures("shared")
def test_workers_map_one_copy_that_one_of_them_reads(engine: sa.Engine, tmp_path: Path) -> None:
    add(engine, *range(9))
    first, second = StockFiles(tmp_path), StockFiles(tmp_path)
    known = from_files(first, engine)
    asked: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", lambda *told: asked.append(told[2]))
    found = from_files(second, engine)
    assert is_mapped(known) and is_mapped(found)
    assert len(asked) == 2  # the snapshot and its state; of the books nothing
    change(engine, [3], price=3)
    changed = from_files(second, engine, found)
    assert 3 in changed.price.tolist() and 3 not in found.price.tolist()  # who holds the older state keeps it
    same(from_files(first, engine, known), whole(engine))
    assert is_mapped(changed)


@pytest.mark.usefixtures("shared")
def test_a_start_takes_the_files_of_before_and_what_changed_since(engine: sa.Engine, tmp_path: Path) -> None:
    add(engine, *range(9))
    from_files(StockFiles(tmp_path), engine)
    change(engine, [1], delisted_at=NOW)
    add(engine, 20)
    same(from_files(StockFiles(tmp_path), engine), whole(engine))


@pytest.mark.usefixtures("shared")
def test_damaged_files_are_not_used(engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    add(engine, *range(9))
    from_files(StockFiles(tmp_path), engine)
    path = tmp_path / "now" / "price.npy"
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    same(from_files(StockFiles(tmp_path), engine), whole(engine))
    assert "price.npy is not as it was written" in caplog.text


@pytest.mark.usefixtures("shared")
def test_files_of_an_older_layout_are_read_anew(
    engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(engine, *range(9))
    from_files(StockFiles(tmp_path), engine)
    note_path = tmp_path / "now" / "stock.json"
    written = json.loads(note_path.read_text())
    # What workers wrote that knew neither of the two columns.
    for column in ("copies", "shelf"):
        del written["checksums"][column]
        (tmp_path / "now" / f"{column}.npy").unlink()
    note_path.write_text(json.dumps({name: written[name] for name in ("state", "table", "transaction", "checksums")}))
    found = from_files(StockFiles(tmp_path), engine)
    same(found, whole(engine))
    assert is_mapped(found) and "cannot be used, the database is asked" in caplog.text
    same(from_files(StockFiles(tmp_path), engine), found)


@pytest.mark.usefixtures("shared")
def test_files_of_a_state_that_a_restored_database_has_not_been_in_are_not_used(
    engine: sa.Engine, tmp_path: Path
) -> None:
    add(engine, *range(9))
    with reading(engine) as connection:
        state = state_of(connection.execute(select_state()).one_or_none())
    # What another future of that database had written.
    stock_files._written(tmp_path, whole(engine)._replace(price=np.full(9, 99.0)), state)
    assert from_files(StockFiles(tmp_path), engine).price.tolist() == [99.0] * 9
    with engine.begin() as connection:
        connection.execute(sa.delete(loads).where(loads.c.id == int(state.data_version)))
    same(from_files(StockFiles(tmp_path), engine), whole(engine))


@pytest.mark.usefixtures("shared")
def test_without_a_place_for_files_the_books_are_kept_in_memory(
    engine: sa.Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(engine, *range(9))
    (tmp_path / "file").write_text("")
    found = from_files(StockFiles(tmp_path / "file" / "stock"), engine)
    same(found, whole(engine))
    assert not is_mapped(found) and "kept in memory" in caplog.text
