"""Listed books of the database -> the files that serving/books/book_files.py maps; only missing books are read.

    { echo postgresql://...; cat; } | python -m serving.books.book_filing HOME/serving/books HOME/serving/stock

Ends at once when its standard input ends: the worker that starts it holds the pipe open, and `cat` does so in a
terminal. Books are appended to the same file in parts, and a new index replaces the old one after each part, so that
readers always have a complete one. If most of the file is out of date, a new file is begun.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.stock import SELECT_VERSIONED, Stock
from bookclub_platform.core.tables import select_state
from serving.books.book_files import NOTE, Filed, Note, mapped, stands
from serving.books.stock_files import newest_stock
from serving.database.catalogue import state_of
from serving.database.postgres import open_sync_engine
from serving.process import logs
from serving.schemas.books import Book

log = logging.getLogger(__name__)

_AT_ONCE = 2000
_PART = 100_000
_NICENESS = 10
_LEFT_FREE_BYTES = 2**30


def main() -> None:
    """Exit status 1 if the books cannot be read or written; the files from before then stay unchanged."""
    logs.configure()
    folder, stock_folder = map(Path, sys.argv[1:3])
    database_url = sys.stdin.readline().strip()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    os.nice(_NICENESS)
    engine = open_sync_engine(database_url, is_read_only=True, timeout_s=0, isolation_level="AUTOCOMMIT")
    began = time.monotonic()
    try:
        with engine.connect() as connection:
            count = file_books(folder, newest_stock(stock_folder), connection)
    except (sa.exc.DBAPIError, OSError, ValueError) as error:
        log.warning("The books could not be filed in %s, Postgres is asked for each: %s", folder, error)
        sys.exit(1)
    log.info("Filed %d books in %.1f s.", count, time.monotonic() - began)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def file_books(folder: Path, stock: Stock, connection: sa.Connection) -> int:
    """Write the books of `stock` whose version is not in the files -> how many there were. After each `_PART` of them
    the files are complete for readers, and for the next run if this one is killed.

    Raises:
        OSError: the files cannot be written.
    """
    filed = _usable(folder, stock, connection)
    lacking = stock.ids if filed is None else filed.lacking(stock)
    for start in range(0, len(lacking), _PART):
        filed = _file(folder, filed, lacking[start : start + _PART], stock, connection)
    return len(lacking)


def _file(
    folder: Path, filed: Filed | None, lacking: NDArray[np.int64], stock: Stock, connection: sa.Connection
) -> Filed | None:
    """Append these books to those already `filed` -> all of them; None if there are none."""
    serial = 1 + (filed.note.serial if filed is not None else _last_serial(folder))
    books = filed.note.books if filed is not None else f"books-{serial}.ndjson"
    begins = filed.note.end if filed is not None else 0
    written = _append(folder / books, begins, _records(lacking, connection))
    index = _merged(filed, written, stock)
    if not index.size:
        return filed
    state = state_of(connection.execute(select_state()).one_or_none())
    note = Note(
        table=stock.mark.table if stock.mark is not None else "", state=(state.data_version, state.stamp),
        serial=serial, index=f"index-{serial}.npy", checksum=zlib.crc32(index.data), books=books,
        end=int(written[3].max(initial=begins)),
    )  # fmt: skip
    _publish(folder, note, index)
    return mapped(folder, note, epoch=0)


def _usable(folder: Path, stock: Stock, connection: sa.Connection) -> Filed | None:
    """The existing files, if they belong to this database and at least half of their content is current."""
    try:
        note = Note.model_validate_json((folder / NOTE).read_bytes())
        if stock.mark is None or note.table != stock.mark.table or not stands(connection, note.state):
            return None
        filed = mapped(folder, note, epoch=0)
    except (OSError, ValueError):  # missing or damaged: start new files
        return None
    return filed if note.end <= 2 * filed.used_bytes(stock) else None


def _last_serial(folder: Path) -> int:
    """The highest serial in any file name, so that no file is overwritten while a worker has it mapped."""
    return max((int(path.stem.split("-")[1]) for path in folder.glob("*-*.n*")), default=0)


def _records(ids: NDArray[np.int64], connection: sa.Connection) -> Iterator[tuple[int, int, bytes]]:
    """(id, row version, JSON) of each book that is still listed, ascending by id."""
    for start in range(0, len(ids), _AT_ONCE):
        rows = connection.execute(SELECT_VERSIONED, {"ids": ids[start : start + _AT_ONCE].tolist()}).all()
        for row in sorted(rows, key=attrgetter("id")):
            yield row.id, row.version, Book.model_validate(row).model_dump_json().encode()


def _append(path: Path, begins: int, records: Iterator[tuple[int, int, bytes]]) -> NDArray[np.int64]:
    """Write the records after the first `begins` bytes -> the columns of the index, (5, n), for these records only."""
    columns = tuple(array("q") for _ in range(5))
    with path.open("r+b" if begins else "wb") as file:
        file.truncate(begins)  # removes what a killed run has left after it
        file.seek(begins)
        at = begins
        for number, (book_id, version, json) in enumerate(records):
            if number % _AT_ONCE == 0 and shutil.disk_usage(path.parent).free < _LEFT_FREE_BYTES:
                raise OSError(f"less than {_LEFT_FREE_BYTES // 2**20} MB of disk are free")
            file.write(json + b"\n")
            for column, value in zip(columns, (book_id, version, at, at + len(json), zlib.crc32(json)), strict=True):
                column.append(value)
            at += len(json) + 1
    return np.array([np.frombuffer(column, dtype=np.int64) for column in columns])


def _merged(filed: Filed | None, written: NDArray[np.int64], stock: Stock) -> NDArray[np.int64]:
    """The index of the books just `written` and of the other listed books."""
    if filed is None:
        return written
    before = np.array([filed.ids, filed.version, filed.start, filed.end, filed.checksum])
    is_kept = np.isin(filed.ids, stock.ids) & ~np.isin(filed.ids, written[0])
    index = np.concatenate([before[:, is_kept], written], axis=1)
    return np.ascontiguousarray(index[:, np.argsort(index[0], kind="stable")])


def _publish(folder: Path, note: Note, index: NDArray[np.int64]) -> None:
    """Replace the previous files with those that `note` names."""
    np.save(folder / note.index, index, allow_pickle=False)
    fresh = folder / f".{NOTE}"
    fresh.write_text(note.model_dump_json())
    fresh.replace(folder / NOTE)
    for path in folder.glob("*-*.n*"):
        if path.name not in {note.index, note.books}:
            path.unlink()  # processes that have mapped it keep it until they unmap it


if __name__ == "__main__":
    main()
