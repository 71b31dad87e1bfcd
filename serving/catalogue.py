"""Statements of core.tables -> rows, each answer from one snapshot of Postgres.

    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_listed(ids)); snapshot.data_version

A database that does not answer becomes DatabaseUnavailable within seconds, and is tried anew by the next request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from psycopg.errors import UndefinedTable
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.tables import select_data_version

log = logging.getLogger(__name__)

POOL_SIZE = 10
CONNECT_TIMEOUT_S = 2
STATEMENT_TIMEOUT_S = 3
ANSWER_TIMEOUT_S = 4.0

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
    """The pool of connections to the books; connects when first asked."""

    def __init__(self, database_url: str) -> None:
        url = sa.make_url(database_url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
        self._engine = create_async_engine(
            url,
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": "-c timezone=UTC -c default_transaction_read_only=on "
                f"-c statement_timeout={STATEMENT_TIMEOUT_S}s",
            },
        )

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Read within one state of the tables.

        Raises:
            DatabaseUnavailable: Postgres refused, broke off, was too slow, or has no tables yet.
        """
        try:
            # A server that hangs (a frozen disk, a lost host) answers neither ping nor query; only a clock notices.
            async with asyncio.timeout(ANSWER_TIMEOUT_S), self._engine.connect() as connection:
                yield Snapshot(connection, str(await connection.scalar(_DATA_VERSION)))
        except sa.exc.ProgrammingError as error:
            if isinstance(error.orig, UndefinedTable):
                raise _unavailable(error, "It has no tables yet: `bookclub build` makes them.") from error
            raise
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, TimeoutError) as error:
            raise _unavailable(error, "Try again in a few seconds.") from error

    async def close(self) -> None:
        await self._engine.dispose()


def _unavailable(error: Exception, advice: str) -> DatabaseUnavailable:
    """What may be told to anyone; the cause may name hosts and roles, and goes to the log alone."""
    log.warning("Postgres does not answer: %s", str(getattr(error, "orig", error)).strip() or type(error).__name__)
    return DatabaseUnavailable(f"The books cannot be read: the database does not answer as it should. {advice}")
