"""Address -> an engine for serving, and connections of it that answer within seconds or say DatabaseUnavailable.

    engine = open_engine(url, 10, isolation_level="REPEATABLE READ"); async with connected(engine) as connection: ...

Connects when first asked; after a failure the next request tries anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import sqlalchemy as sa
from psycopg.errors import UndefinedTable
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bookclub_platform.core.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2
STATEMENT_TIMEOUT_S = 3
ANSWER_TIMEOUT_S = 4.0


def open_engine(database_url: str, pool_size: int, isolation_level: str, is_read_only: bool) -> AsyncEngine:
    """A pool of at most `pool_size` connections."""
    url = sa.make_url(database_url.replace("postgres://", "postgresql://", 1)).set(drivername="postgresql+psycopg")
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        isolation_level=isolation_level,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": f"-c timezone=UTC -c default_transaction_read_only={'on' if is_read_only else 'off'} "
            f"-c statement_timeout={STATEMENT_TIMEOUT_S}s",
        },
    )


def be_patient(for_s: float) -> sa.Select[tuple[str]]:
    """What lets each statement of a transaction take so long."""
    return sa.select(sa.func.set_config("statement_timeout", f"{for_s:.0f}s", True))


@asynccontextmanager
async def connected(
    engine: AsyncEngine, what: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> AsyncIterator[AsyncConnection]:
    """A connection for one answer; commit what is to stay. `what` names for people what it is for: "The books".

    Raises:
        DatabaseUnavailable: Postgres refused, broke off, was too slow, or has no tables yet.
    """
    try:
        # A server that hangs (a frozen disk, a lost host) answers neither ping nor query; only a clock notices.
        async with asyncio.timeout(timeout_s), engine.connect() as connection:
            yield connection
    except sa.exc.ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable):
            raise _unavailable(what, error, "It has no tables yet: `bookclub build` makes them.") from error
        raise
    except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, TimeoutError) as error:
        raise _unavailable(what, error, "Try again in a few seconds.") from error


def _unavailable(what: str, error: Exception, advice: str) -> DatabaseUnavailable:
    """What may be told to anyone; the cause may name hosts and roles, and goes to the log alone."""
    log.warning("Postgres does not answer: %s", str(getattr(error, "orig", error)).strip() or type(error).__name__)
    return DatabaseUnavailable(f"{what} cannot be read: the database does not answer as it should. {advice}")
