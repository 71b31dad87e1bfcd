"""Postgres -> the data version, known in memory and never more than STALE_S behind; or known not to be.

    watch = DataWatch(database_url); task = asyncio.create_task(watch.run())
    watch.version, watch.is_current

Asked again and again rather than told by LISTEN: a connection that was dropped in silence tells nothing, and looks like
one on which nothing happens.
"""

from __future__ import annotations

import asyncio
import logging
import time

import sqlalchemy as sa

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.tables import select_data_version
from serving.postgres import connected, open_engine

log = logging.getLogger(__name__)

PAUSE_S = 0.3
STALE_S = 1.0

_DATA_VERSION = select_data_version()


class DataWatch:
    """Attributes:
    version: the newest data version that this process has heard of; None before the first.
    outages: how often Postgres came back: another database, restored, may stand there since, with the same versions.
    """

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url, 1, "AUTOCOMMIT", is_read_only=True)
        self._confirmed_at = -STALE_S
        self._is_away = False
        self.version: str | None = None
        self.outages = 0

    @property
    def is_current(self) -> bool:
        """Whether Postgres named `version` within the last STALE_S seconds."""
        return time.monotonic() - self._confirmed_at < STALE_S

    def saw(self, version: str) -> None:
        """An answer was read from that version: nobody who has seen it may be given an older one afterwards."""
        if self.version is None or int(version) > int(self.version):
            self.version = version

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S if await self.look() else STALE_S)

    async def look(self) -> bool:
        """Ask Postgres once; False if it did not answer, which `connected` has logged then."""
        asked_at, before = time.monotonic(), self.version
        try:
            async with connected(self._engine, "The data version") as connection:
                found = str(await connection.scalar(_DATA_VERSION))
        except (DatabaseUnavailable, sa.exc.SQLAlchemyError) as error:
            log.debug("The data version is not known: %s", error)
            self._is_away = True
            return False
        self.outages += self._is_away
        self._is_away = False
        # Lower only where nothing newer was seen meanwhile: then it is another database.
        if self.version == before or int(found) > int(self.version or 0):
            self.version = found
        self._confirmed_at = asked_at
        return True

    async def close(self) -> None:
        await self._engine.dispose()
