"""The JSON of the listed books in a file that all workers map -> each book's bytes, by the version of its row.

    files = BookFiles(home / "serving" / "books", home / "serving" / "stock", database_url)
    files.follow(connection, stock, epoch)          maps what was filed last; has what lacks filed by another process
    files.of([7, 9], [831, 840], epoch)             [b'{"id":7,...', None]: of 9 that version is not filed

Of a million books ten scattered ones would come from Postgres with nearly every answer, at ten times the cost of all
else. The process that files them (book_filing.py) has a Python of its own: it must not hold up those who answer.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from bookclub_platform.core.stock import Stock
from bookclub_platform.core.tables import loads, select_state
from serving.database.catalogue import state_of

log = logging.getLogger(__name__)

NOTE, LOCK = "books.json", ".lock"
_WORTH_IT = 1000  # so many that are not filed; fewer are kept by each worker as they are asked for
_REST = 10  # so many times as long as filing took nothing more is filed
_LEAST_REST_S = 30.0


class Note(BaseModel):
    """Which files hold the books, and of which database and state they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    table: str
    state: tuple[str, str]
    serial: int
    index: str
    checksum: int
    books: str
    end: int


class Filed(NamedTuple):
    """(n,) each, at least one, ascending by id: of book `ids[i]` the row's `version[i]` is
    `json[start[i]:end[i]]`; `epoch` is `DataWatch.outages` when that was last found to be of this database."""

    note: Note
    epoch: int
    ids: NDArray[np.int64]
    version: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    checksum: NDArray[np.int64]
    json: mmap.mmap

    def of(self, ids: Sequence[int], versions: Sequence[int]) -> list[bytes | None]:
        """Each book; None if it is not here in that version, or not as it was written."""
        at, is_here = self._places(np.array(ids, dtype=np.int64), np.array(versions, dtype=np.int64))
        bounds = zip(self.start[at].tolist(), self.end[at].tolist(), strict=True)
        found = [self.json[start:end] for start, end in bounds]
        is_whole = [
            zlib.crc32(json) == checksum for json, checksum in zip(found, self.checksum[at].tolist(), strict=True)
        ]
        return [
            json if there and whole else None
            for json, there, whole in zip(found, is_here.tolist(), is_whole, strict=True)
        ]

    def lacking(self, stock: Stock) -> NDArray[np.int64]:
        """Ids of the books of `stock` that are not here in their version."""
        return stock.ids[~self._places(stock.ids, stock.version)[1]]

    def used_bytes(self, stock: Stock) -> int:
        """What the books take that `stock` has in their version."""
        at, is_here = self._places(stock.ids, stock.version)
        return int((self.end[at[is_here]] - self.start[at[is_here]]).sum())

    def _places(
        self, ids: NDArray[np.int64], versions: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Where each book is, if it is here in that version; else any place."""
        at = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        return at, (self.ids[at] == ids) & (self.version[at] == versions)


class BookFiles:
    """What is filed below `folder`, of the books whose columns lie below `stock`. `follow` is for one thread."""

    def __init__(self, folder: Path, stock: Path, database_url: str) -> None:
        self._folder, self._stock, self._database_url = folder, stock, database_url
        self._filed: Filed | None = None
        self._filing: subprocess.Popen[bytes] | None = None
        self._seen: tuple[Stock, Filed | None] | None = None
        self._began, self._again_at = 0.0, 0.0

    def of(self, ids: Sequence[int], versions: Sequence[int], epoch: int) -> list[bytes | None]:
        """The JSON of each book in that version of its row, None where it is not filed."""
        filed = self._filed
        if filed is None or filed.epoch != epoch:
            return [None] * len(ids)
        return filed.of(ids, versions)

    def follow(self, connection: sa.Connection, stock: Stock, epoch: int) -> None:
        """Map what was filed last, if it is of the database behind `connection`; where much of `stock` lacks, see that
        it is filed. Does not raise for what lies in the folder: a fault is logged, and Postgres is asked for books."""
        try:
            self._filed = self._newest(connection, stock, epoch)
            self._have_filed(stock)
        except (OSError, ValueError) as error:
            self._filed = None
            log.warning("The books filed in %s cannot be used, Postgres is asked for each: %s", self._folder, error)

    def close(self) -> None:
        """End what is being filed."""
        if self._filing is not None:
            self._filing.kill()  # it leaves what was filed before as it is
            self._filing.communicate()
            self._filing = None

    def _newest(self, connection: sa.Connection, stock: Stock, epoch: int) -> Filed | None:
        try:
            note = Note.model_validate_json((self._folder / NOTE).read_bytes())
        except FileNotFoundError:
            return None
        before = self._filed
        if before is not None and before.note == note and before.epoch == epoch:
            return before
        if stock.mark is None or note.table != stock.mark.table or not stands(connection, note.state):
            return None  # versions of rows say nothing of another database
        if before is not None and before.note == note:
            return before._replace(epoch=epoch)
        return mapped(self._folder, note, epoch)

    def _have_filed(self, stock: Stock) -> None:
        """Begin to file what lacks, unless some process does already, or has not rested."""
        now = time.monotonic()
        if self._filing is not None:
            if self._filing.poll() is None:
                return
            self._filing.communicate()
            self._filing = None
            self._again_at = now + max(_LEAST_REST_S, _REST * (now - self._began))
        if now < self._again_at or self._is_whole(stock):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # another worker's
                self._again_at = now + _LEAST_REST_S
                return
            self._began = now
            command = [sys.executable, "-m", "serving.books.book_filing", str(self._folder), str(self._stock)]
            # The address, which has a password in it, goes where nobody can read it; the end of that pipe ends it.
            # The lock is held for as long as that process has it open.
            self._filing = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[lock.fileno()], process_group=0)
        assert self._filing.stdin is not None
        self._filing.stdin.write(self._database_url.encode() + b"\n")
        self._filing.stdin.flush()

    def _is_whole(self, stock: Stock) -> bool:
        if self._seen is not None and self._seen[0] is stock and self._seen[1] is self._filed:
            return True
        lacking = len(stock.ids) if self._filed is None else len(self._filed.lacking(stock))
        if lacking >= _WORTH_IT:
            return False
        self._seen = stock, self._filed
        return True


def stands(connection: sa.Connection, state: tuple[str, str]) -> bool:
    """Whether the database has been in that state: one that an earlier copy was laid over has not."""
    version, _ = state
    row = connection.execute(select_state().where(loads.c.id == int(version))).one_or_none()
    return state_of(row) == state


def mapped(folder: Path, note: Note, epoch: int) -> Filed:
    """What `note` names.

    Raises:
        OSError, ValueError: it is not there, or not as it was written.
    """
    index = np.asarray(np.lib.format.open_memmap(folder / note.index, mode="r"))
    if index.ndim != 2 or len(index) != 5 or not index.size or zlib.crc32(index.data) != note.checksum:
        raise ValueError(f"{folder / note.index} is not as it was written")
    with (folder / note.books).open("rb") as file:
        if os.fstat(file.fileno()).st_size < note.end:
            raise ValueError(f"{folder / note.books} is shorter than it was")
        json = mmap.mmap(file.fileno(), note.end, prot=mmap.PROT_READ)
    # Here, and not by the first who asks: to touch a page for the first time takes as long as ten books, and while
    # NumPy does it others run.
    np.frombuffer(json, dtype=np.uint8)[:: 16 * mmap.PAGESIZE].max()
    ids, version, start, end, checksum = index
    return Filed(note, epoch, ids, version, start, end, checksum, json)
