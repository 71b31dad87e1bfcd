"""Database URL -> an engine for serving, and connections that respond within seconds or raise DatabaseUnavailable.

    engine = open_engine(url, 10, isolation_level="REPEATABLE READ", is_read_only=True)
    async with connected(engine, watch, "The books") as connection: ...

A URL names its driver, as from core/database.database_urls; create_app sees to that.

Connects on first use; after a failure the next request tries again, unless the watch knows that Postgres is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from psycopg.errors import UndefinedTable
from psycopg.waiting import wait_async
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bookclub_platform.core.errors import DatabaseUnavailable

if TYPE_CHECKING:
    from serving.database.datawatch import DataWatch

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 2
STATEMENT_TIMEOUT_S = 3
ANSWER_TIMEOUT_S = 4.0
# A host that vanishes sends nothing: by default Linux notices after a quarter of an hour, or after two hours if it has
# acknowledged the query.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
_LOOKED_EVERY_S = 0.1  # psycopg's default
_LATER = "Try again in a few seconds."
_SILENT = "the database does not respond as expected."


class _Connection(psycopg.AsyncConnection[Any]):
    """Closes the connection when a statement is cancelled. psycopg would ask the server to cancel it and wait ten
    seconds, but a server that hangs does not do that; one that does not hang ends it after STATEMENT_TIMEOUT_S."""

    async def wait(self, gen: Any, interval: float = _LOOKED_EVERY_S, timeout: float | None = None) -> Any:
        try:
            return await wait_async(gen, self.pgconn.socket, interval, timeout)
        except asyncio.CancelledError:
            self.pgconn.finish()
            raise


class TimedConnection(psycopg.Connection[Any]):
    """Gives a statement up after `within_s` seconds and closes the connection. The server's own limit does not help if
    the server is gone while something between still acknowledges what is sent: a proxy, or a network that fails over.

    Raises:
        ConnectionTimeout: there is no answer in that time.
    """

    within_s: float = ANSWER_TIMEOUT_S

    def wait(self, gen: Any, interval: float = _LOOKED_EVERY_S, timeout: float | None = None) -> Any:
        within_s = self.within_s if timeout is None else timeout
        try:
            return super().wait(gen, interval, within_s)
        except psycopg.errors._WaitTimeout:
            self.pgconn.finish()
            raise psycopg.errors.ConnectionTimeout(f"The database has not answered in {within_s:g} s.") from None


def open_engine(database_url: str, pool_size: int, isolation_level: str, is_read_only: bool) -> AsyncEngine:
    """A pool of at most `pool_size` connections."""
    return create_async_engine(
        database_url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_TIMEOUT_S,
        pool_pre_ping=True,
        isolation_level=isolation_level,
        connect_args={"async_creator_fn": _Connection.connect, **_connect_args(is_read_only, STATEMENT_TIMEOUT_S)},
    )


def open_sync_engine(database_url: str, *, is_read_only: bool, timeout_s: int, **pool: Any) -> sa.Engine:
    """An engine for threads; `timeout_s`: how long a statement may take; 0: no limit."""
    engine = sa.create_engine(database_url, connect_args=_connect_args(is_read_only, timeout_s), **pool)
    if timeout_s:
        _limit(engine, timeout_s + 1)
    return engine


def _limit(engine: sa.Engine, within_s: float) -> None:
    """Let its connections wait for statements for `within_s` seconds, and less for the ping before they are used."""

    @sa.event.listens_for(engine, "do_connect")
    def connect(dialect: object, record: object, where: list[Any], how: dict[str, Any]) -> TimedConnection:
        return TimedConnection.connect(*where, **how)

    @sa.event.listens_for(engine, "checkout")
    def come_to_use(connection: TimedConnection, *_: object) -> None:
        connection.within_s = within_s

    @sa.event.listens_for(engine, "checkin")
    def come_back(connection: TimedConnection | None, *_: object) -> None:
        if connection is not None:  # else it was closed
            connection.within_s = TimedConnection.within_s


def _connect_args(is_read_only: bool, timeout_s: int) -> dict[str, Any]:
    return {
        "connect_timeout": CONNECT_TIMEOUT_S,
        **KEEPALIVE,
        "options": f"-c timezone=UTC -c default_transaction_read_only={'on' if is_read_only else 'off'} "
        f"-c statement_timeout={timeout_s}s",
    }


def be_patient(for_s: float) -> sa.Select[tuple[str]]:
    """A statement that lets each statement of the transaction take up to `for_s` seconds."""
    return sa.select(sa.func.set_config("statement_timeout", f"{for_s:.0f}s", True))


@asynccontextmanager
async def connected(
    engine: AsyncEngine, watch: DataWatch, what: str, timeout_s: float = ANSWER_TIMEOUT_S
) -> AsyncIterator[AsyncConnection]:
    """A connection for one response; commit what should stay. `what` names its purpose for people: "The books". While
    the watch knows that Postgres is silent, this fails at once.

    Raises:
        DatabaseUnavailable: Postgres refused, broke off, was too slow, or has no tables yet.
    """
    if watch.is_to_be_spared():
        raise DatabaseUnavailable(_told(what, _LATER))
    try:
        # A server that hangs (a frozen disk, a lost host) answers neither ping nor query; only a clock notices.
        started = asyncio.get_running_loop().time()
        async with asyncio.timeout(ANSWER_TIMEOUT_S) as limit, engine.connect() as connection:
            limit.reschedule(started + timeout_s)  # the longer limit is for queries, not for connecting
            yield connection
        watch.heard()
    except sa.exc.ProgrammingError as error:
        if isinstance(error.orig, UndefinedTable):
            raise _unavailable(what, error, "It has no tables yet: run `bookclub build`.") from error
        raise
    except sa.exc.TimeoutError as error:  # no fault of Postgres: other requests hold all connections
        raise _unavailable(what, error, _LATER, "too many requests at once.") from error
    except (sa.exc.OperationalError, sa.exc.InterfaceError, TimeoutError) as error:
        if getattr(getattr(error, "orig", None), "sqlstate", None) is not None:
            watch.heard()  # the error came from Postgres, so it responds
        else:
            watch.tried()  # further queries of the same request should not wait as long again
        raise _unavailable(what, error, _LATER) from error


def _unavailable(what: str, error: Exception, advice: str, why: str = _SILENT) -> DatabaseUnavailable:
    """An error that may be shown to anyone; the cause may name hosts and roles, and goes only to the log."""
    cause = str(getattr(error, "orig", error)).strip() or type(error).__name__
    log.warning("%s cannot be read: %s %s", what, why, cause)
    return DatabaseUnavailable(_told(what, advice, why))


def _told(what: str, advice: str, why: str = _SILENT) -> str:
    return f"{what} cannot be read: {why} {advice}"
