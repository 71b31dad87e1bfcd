"""Statements of core.tables -> rows, each answer from one snapshot of Postgres.

    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_listed(ids)); snapshot.data_version

A database that does not answer becomes DatabaseUnavailable within seconds, and is tried anew by the next request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bookclub_platform.core.tables import select_data_version
from serving.datawatch import DataWatch
from serving.postgres import connected, open_engine

POOL_SIZE = 10

_DATA_VERSION = select_data_version()


class Snapshot:
    """One state of the tables; every row read through it belongs to `data_version`."""

    def __init__(self, connection: AsyncConnection, data_version: str) -> None:
        self._connection = connection
        self.data_version = data_version

    async def rows(self, statement: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        rows: Sequence[sa.Row[Any]] = (await self._connection.execute(statement)).all()
        return rows

    async def scalar(self, statement: sa.Select[Any]) -> Any:
        return await self._connection.scalar(statement)


class Catalogue:
    """The pool of connections to the books; connects when first asked. `watch` knows the newest version read."""

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url, POOL_SIZE, "REPEATABLE READ", is_read_only=True)
        self.watch = DataWatch(database_url)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Read within one state of the tables.

        Raises:
            DatabaseUnavailable: Postgres refused, broke off, was too slow, or has no tables yet.
        """
        async with connected(self._engine, "The books") as connection:
            data_version = str(await connection.scalar(_DATA_VERSION))
            self.watch.saw(data_version)
            yield Snapshot(connection, data_version)

    async def close(self) -> None:
        self.watch.stop()
        await self._engine.dispose()
