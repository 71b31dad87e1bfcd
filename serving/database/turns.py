"""An account -> its turn at what it may do once at a time, whichever worker it asks.

    turns = Turns(home / "serving" / "exports")
    with ExitStack() as held: turns.take(7, held) -> True, and False for who comes before that is closed

A lock on one byte of an empty file for each account: one that ended, and one that was killed, holds nothing.
"""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

_PLACES = 2**62


class Turns:
    """The turns that are kept in `path`, which is made when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._taken: set[int] = set()  # a process's own locks never stand in its way

    def take(self, account: int, held: ExitStack) -> bool:
        """Whether it is the turn of `account`, which then lasts until `held` is closed."""
        if account in self._taken:
            return False
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, account % _PLACES)
        except (BlockingIOError, PermissionError):  # POSIX lets a system say either
            return False
        self._taken.add(account)
        held.callback(self._give_back, account)
        return True

    def _give_back(self, account: int) -> None:
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, account % _PLACES)
        self._taken.discard(account)  # last: whoever takes it meanwhile would lose the lock to this unlocking
