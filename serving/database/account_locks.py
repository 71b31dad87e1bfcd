"""An account -> its lock for something that it may do only once at a time, across all workers.

    locks = AccountLocks(home / "serving" / "exports")
    with ExitStack() as held: locks.take(7, held) -> True; until `held` is closed, False for the same account

Each account has a lock on one byte of an empty file. A process that ends or is killed releases its locks. Where the
file cannot be locked, each process counts for itself: an export in each worker is better than none.
"""

from __future__ import annotations

import fcntl
import logging
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

_POSITIONS = 2**62


class AccountLocks:
    """Locks on the file `path`, which is created on first use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._taken: set[int] = set()  # POSIX locks do not conflict within one process
        self._has_failed = False

    def take(self, account: int, held: ExitStack) -> bool:
        """Take the lock of `account` until `held` is closed; return False if it is taken."""
        if account in self._taken:
            return False
        locked = None
        try:
            locked = self._opened()
            try:
                fcntl.lockf(locked, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, account % _POSITIONS)
            except (BlockingIOError, PermissionError):  # POSIX allows either
                return False
        except OSError as error:
            locked = None
            if not self._has_failed:
                log.warning(
                    "An account may do in each worker what it may do once: %s cannot be locked: %s. Make it "
                    "writable, on a disk with locks.",
                    self._path,
                    error,
                )
            self._has_failed = True
        self._taken.add(account)
        held.callback(self._give_back, account, locked)
        return True

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        return self._file

    def _give_back(self, account: int, locked: BinaryIO | None) -> None:
        try:
            if locked is not None:
                fcntl.lockf(locked, fcntl.LOCK_UN, 1, account % _POSITIONS)
        finally:
            self._taken.discard(account)  # last: whoever takes it meanwhile would lose the lock to this unlocking
