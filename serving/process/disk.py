"""The folder where this server stores its files -> whether it has space and can be written to.

    disk = Disk(settings.home); await disk.fault()      None, or "3 MB are free in ..., of 100 MB that ..."

A full disk does not affect present responses, but it stops everything new: a new model, the lock file of exports.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path

LEAST_FREE_BYTES = 100 * 2**20  # models of some ten thousand books, and whatever else grows there
ASKED_EVERY_S, PATIENCE_S = 5.0, 2.0
_TRIED = bytes(4096)  # a file of a few bytes may fit where nothing else does


class Disk:
    """One folder; it is checked at most once in ASKED_EVERY_S, however often `fault` is called."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looking: asyncio.Task[str | None] | None = None
        self._looked_at = float("-inf")

    async def fault(self) -> str | None:
        """What is wrong, for the operator; None if nothing is."""
        looking, now = self._looking, time.monotonic()
        if looking is None or (looking.done() and now - self._looked_at > ASKED_EVERY_S):
            looking = self._looking = asyncio.create_task(asyncio.to_thread(self._look))
            self._looked_at = now
        await asyncio.wait([looking], timeout=PATIENCE_S)  # a network file system may hang for ever
        return looking.result() if looking.done() else f"{self._folder} did not answer within {PATIENCE_S:g} s"

    def _look(self) -> str | None:
        tried = self._folder / f".room-{os.getpid()}"
        try:
            try:
                tried.write_bytes(_TRIED)
            finally:
                tried.unlink(missing_ok=True)
            free = shutil.disk_usage(self._folder).free
        except OSError as error:
            return f"{self._folder} cannot be written to: {error.strerror}"
        if free >= LEAST_FREE_BYTES:
            return None
        needed = f"of the {LEAST_FREE_BYTES >> 20} MB that a new model may need"
        return f"{free >> 20} MB are free in {self._folder}, {needed}"
