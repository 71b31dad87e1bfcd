"""The JSON of the listed books in a file that all workers map -> each book's bytes, by the version of its row.

    files = BookFiles(home / "serving" / "books", home / "serving" / "stock", database_url)
    files.follow(connection, stock, epoch)          maps the newest file; starts a process that adds missing books
    files.of([7, 9], [831, 840], epoch)             [b'{"id":7,...', None]: book 9 is not in the file in that version

With a million books, nearly every response would read ten scattered ones from Postgres, at ten times the cost of the
rest. The file is written by a separate Python process (book_filing.py), which must not hold up the workers.
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
_WORTH_IT = 1000  # missing books; fewer are cached by each worker as requests need them
_REST = 10  # the pause after filing, as a multiple of the time it took
_LEAST_REST_S = 30.0


class Note(BaseModel):
    """Which files hold the books, and which database and state they belong to."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    table: str
    state: tuple[str, str]
    serial: int
    index: str
    checksum: int
    books: str
    end: int


class Filed(NamedTuple):
    """(n,) each, at least one, ascending by id: book `ids[i]` in the row version `version[i]` is
    `json[start[i]:end[i]]`. `epoch`: `DataWatch.outages` when the files were last found to belong to this database."""

    note: Note
    epoch: int
    ids: NDArray[np.int64]
    version: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    checksum: NDArray[np.int64]
    json: mmap.mmap

    def of(self, ids: Sequence[int], versions: Sequence[int]) -> list[bytes | None]:
        """The JSON of each book; None if that version is not here, or is damaged."""
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
        """Ids of the books of `stock` whose version is not here."""
        return stock.ids[~self._places(stock.ids, stock.version)[1]]

    def used_bytes(self, stock: Stock) -> int:
        """The size of the books that are still in `stock` in their version."""
        at, is_here = self._places(stock.ids, stock.version)
        return int((self.end[at[is_here]] - self.start[at[is_here]]).sum())

    def _places(
        self, ids: NDArray[np.int64], versions: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The place of each book, and whether it is here in that version; if not, the place means nothing."""
        at = np.minimum(self.ids.searchsorted(ids), len(self.ids) - 1)
        return at, (self.ids[at] == ids) & (self.version[at] == versions)


class BookFiles:
    """The files in `folder`, of the books whose columns are in the folder `stock`. `follow` is for one thread."""

    def __init__(self, folder: Path, stock: Path, database_url: str) -> None:
        self._folder, self._stock, self._database_url = folder, stock, database_url
        self._filed: Filed | None = None
        self._filing: subprocess.Popen[bytes] | None = None
        self._seen: tuple[Stock, Filed | None] | None = None
        self._began, self._again_at = 0.0, 0.0

    def of(self, ids: Sequence[int], versions: Sequence[int], epoch: int) -> list[bytes | None]:
        """The JSON of each book in that version of its row; None if it is not in the file."""
        filed = self._filed
        if filed is None or filed.epoch != epoch:
            return [None] * len(ids)
        return filed.of(ids, versions)

    def follow(self, connection: sa.Connection, stock: Stock, epoch: int) -> None:
        """Map the newest files, if they belong to the database of `connection`; if many books of `stock` are missing,
        have them filed. Faults of the files do not raise: they are logged, and the books are read from Postgres."""
        try:
            self._filed = self._newest(connection, stock, epoch)
            self._have_filed(stock)
        except (OSError, ValueError) as error:
            self._filed = None
            log.warning("The books filed in %s cannot be used, Postgres is asked for each: %s", self._folder, error)

    def close(self) -> None:
        """Stop a running filing process."""
        if self._filing is not None:
            self._filing.kill()  # safe: the files from before stay intact
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
            return None  # row versions mean nothing in another database
        if before is not None and before.note == note:
            return before._replace(epoch=epoch)
        return mapped(self._folder, note, epoch)

    def _have_filed(self, stock: Stock) -> None:
        """Start to file missing books, unless a process already does, or the pause after the last one is not over."""
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
            except BlockingIOError:  # another worker's process runs
                self._again_at = now + _LEAST_REST_S
                return
            self._began = now
            command = [sys.executable, "-m", "serving.books.book_filing", str(self._folder), str(self._stock)]
            # The URL contains a password, so it goes through a pipe, which no other process can read. The process exits
            # when the pipe closes. It inherits the open lock file, and so holds the lock for as long as it runs.
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
    """Whether the database has been in that state. One that was restored from an earlier copy has not."""
    version, _ = state
    row = connection.execute(select_state().where(loads.c.id == int(version))).one_or_none()
    return state_of(row) == state


def mapped(folder: Path, note: Note, epoch: int) -> Filed:
    """The files that `note` names, mapped.

    Raises:
        OSError, ValueError: they are missing or damaged.
    """
    index = np.asarray(np.lib.format.open_memmap(folder / note.index, mode="r"))
    if index.ndim != 2 or len(index) != 5 or not index.size or zlib.crc32(index.data) != note.checksum:
        raise ValueError(f"{folder / note.index} is not as it was written")
    with (folder / note.books).open("rb") as file:
        if os.fstat(file.fileno()).st_size < note.end:
            raise ValueError(f"{folder / note.books} is shorter than it was")
        json = mmap.mmap(file.fileno(), note.end, prot=mmap.PROT_READ)
    # Touch the pages here, not in the first requests: the first access to a page takes as long as ten books, and while
    # NumPy does it, other threads run.
    np.frombuffer(json, dtype=np.uint8)[:: 16 * mmap.PAGESIZE].max()
    ids, version, start, end, checksum = index
    return Filed(note, epoch, ids, version, start, end, checksum, json)
