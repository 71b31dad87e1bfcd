"""Slow requests -> a few of each kind at a time, so that fast ones always find a connection.

searches = Bulkhead("searches", slots=3, patience_s=4)
async with searches.slot(): ...            503 `busy` if none is free within `patience_s`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.http import problems

_RETRY_AFTER_S = 2


class Bulkhead:
    """`slots` for requests of one kind. A request that waits for a slot holds no connection.

    `patience_s`: how long a request may wait for a slot, and how long it may take once it has one.
    """

    def __init__(self, what: str, slots: int, patience_s: float) -> None:
        self.patience_s = patience_s
        self._what = what
        self._slots = asyncio.Semaphore(slots)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the slots.

        Raises:
            Problem: 503 `busy`, none was free in time.
        """
        try:
            async with asyncio.timeout(self.patience_s):
                await self._slots.acquire()
        except TimeoutError as error:
            detail = f"Too many {self._what} are running. Retry in a few seconds."
            raise problems.Problem("busy", detail, {"Retry-After": str(_RETRY_AFTER_S)}) from error
        try:
            yield
        finally:
            self._slots.release()
