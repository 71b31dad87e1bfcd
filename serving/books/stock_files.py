"""The listed books of the database -> files that all workers map; one worker reads, and only what is new.

    files = StockFiles(home / "serving" / "stock")
    with files.turn():                                  # one worker at a time
        ...                                             # a connection whose snapshot is taken now
        stock = files.read(connection, state, before)   # its arrays are in files: one copy for all workers

For a million books the columns take 54 MB, and reading all of them takes seconds. A start that finds yesterday's files
reads only what changed since. If the files cannot be written, each worker keeps its own columns in memory, as with a
small catalogue.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bookclub_platform.core.stock import Mark, Stock, Whole, read_changes, read_stock
from serving.books.book_files import stands
from serving.database.catalogue import LARGE_FROM, State

log = logging.getLogger(__name__)

_NOTE = "stock.json"
_PATIENCE_S, _POLL_S = 20.0, 0.02
_RENEWED_AFTER_S = 30.0


class _Note(BaseModel):
    """The file beside the columns: which state they belong to, totals, and checksums."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    state: tuple[str, str]
    table: str
    transaction: int
    delisted: int
    first_seen_at: datetime | None
    updated_at: datetime | None
    checksums: dict[str, int]


class StockFiles:
    """The columns of the newest state in `folder`; None: each process keeps its own. For one thread at a time."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._is_our_turn = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Inside this block no other worker reads. If another worker hangs in it, go on without waiting or writing."""
        with ExitStack() as held:
            self._is_our_turn = self._folder is not None and self._taken(self._folder, held)
            yield

    @staticmethod
    def _taken(folder: Path, held: ExitStack) -> bool:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = held.enter_context((folder / ".lock").open("w"))
        except OSError as error:
            log.warning("The books are kept in memory, and not in %s: %s", folder, error)
            return False
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_POLL_S)
            else:
                return True
        log.warning("Another worker has been reading the books for %g s: they are read beside it.", _PATIENCE_S)
        return False

    def read(self, connection: sa.Connection, state: State, before: Stock | None = None) -> Stock:
        """The listed books in the connection's snapshot, which has the state `state`.

        Args:
            before: what this process last read from the same database.
        """
        known = before
        if self._folder is not None and self._is_our_turn and (found := _found(self._folder)) is not None:
            note, kept, age_s = found
            if _is_later(kept, before):
                if note.state == state and age_s < _RENEWED_AFTER_S:
                    return kept  # another worker has just read it
                known = kept if stands(connection, note.state) else before
        stock = read_stock(connection) if known is None else read_changes(connection, known)
        if self._folder is None or not self._is_our_turn or stock is known or len(stock.ids) < LARGE_FROM:
            return stock
        try:
            return _written(self._folder, stock, state)
        except OSError as error:
            log.warning("The books are kept in memory, and not in %s: %s", self._folder, error)
            return stock


def newest_stock(folder: Path) -> Stock:
    """The columns in `folder`.

    Raises:
        OSError, ValueError: they are missing or damaged.
    """
    return _mapped(folder / "now")[1]


def _found(folder: Path) -> tuple[_Note, Stock, float] | None:
    """The files, if they are intact, and their age in seconds."""
    try:
        age_s = time.time() - (folder / "now" / _NOTE).stat().st_mtime
        return *_mapped(folder / "now"), age_s
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("The copy of the books in %s cannot be used, the database is asked: %s", folder, error)
        return None


def _is_later(kept: Stock, before: Stock | None) -> bool:
    if before is None or before.mark is None or kept.mark is None:
        return before is None
    return kept.mark.transaction > before.mark.transaction


def _written(folder: Path, stock: Stock, state: State) -> Stock:
    """Write `stock` in place of the previous files -> `stock`, mapped from its files."""
    assert stock.mark is not None and stock.whole is not None
    for leftover in folder.glob(".[no]*-*"):
        shutil.rmtree(leftover)
    fresh, old = folder / f".new-{os.getpid()}", folder / f".old-{os.getpid()}"
    fresh.mkdir()
    for name, array in stock.columns.items():
        np.save(fresh / f"{name}.npy", array, allow_pickle=False)
    checksums = {name: zlib.crc32(np.ascontiguousarray(array).data) for name, array in stock.columns.items()}
    facts = stock.mark._asdict() | stock.whole._asdict()
    note = _Note(state=(state.data_version, state.stamp), checksums=checksums, **facts)
    (fresh / _NOTE).write_text(note.model_dump_json())
    mapped = _mapped(fresh)[1]
    if (folder / "now").exists():
        (folder / "now").rename(old)
    fresh.rename(folder / "now")
    shutil.rmtree(old, ignore_errors=True)  # processes that have mapped it keep it until they unmap it
    return mapped


def _mapped(folder: Path) -> tuple[_Note, Stock]:
    """Raises OSError or ValueError if the files are missing or damaged."""
    note = _Note.model_validate_json((folder / _NOTE).read_bytes())
    columns = {name: _column(folder / f"{name}.npy", checksum) for name, checksum in note.checksums.items()}
    if set(columns) != set(Stock._fields) - {"mark", "whole"} or len({len(array) for array in columns.values()}) != 1:
        raise ValueError(f"{folder} does not hold the columns of one stock")
    whole = Whole(note.delisted, note.first_seen_at, note.updated_at)
    return note, Stock(**columns, mark=Mark(note.table, note.transaction), whole=whole)


def _column(path: Path, checksum: int) -> NDArray[Any]:
    array = np.asarray(np.lib.format.open_memmap(path, mode="r"))  # a plain view: slices of a memmap cost more
    if array.ndim != 1 or zlib.crc32(array.data) != checksum:
        raise ValueError(f"{path} is not as it was written")
    return array
