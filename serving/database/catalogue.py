"""Statements of core.tables -> rows, those of each response from one snapshot of Postgres.

    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_listed(ids)); snapshot.data_version
    async with catalogue.snapshot(catalogue.figures) as snapshot: ...        for slow queries

A database that does not respond raises DatabaseUnavailable within seconds, and is tried again by the next request.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from bookclub_platform.core.tables import select_state
from serving.database.bulkheads import Bulkhead
from serving.database.datawatch import DataWatch
from serving.database.postgres import ANSWER_TIMEOUT_S, be_patient, connected, open_engine
from serving.http import problems

POOL_SIZE = 10
_MOST_REMEMBERED = 2000  # of counts and figures, a few kilobytes each at most

PATIENCE_S = 30.0
# Books. With fewer, a worker's own columns take less than a megabyte, a lineup is read in a moment, and any list is
# found in less time than it takes to start work in another thread.
LARGE_FROM = 20_000
_Rows = Sequence[sa.Row[Any]]
_T = TypeVar("_T")


class State(NamedTuple):
    """A state of the tables. `stamp` also distinguishes it from states of a database that was here before."""

    data_version: str
    stamp: str


def state_of(row: sa.Row[Any] | None) -> State:
    """The state that the row of select_state names."""
    return State(str(row.id), f"{row.id}-{row.loaded_at.timestamp():.6f}") if row is not None else State("0", "0")


class _Memory:
    """Cached counts by state and key, and a lock for each count that is running."""

    def __init__(self) -> None:
        self.counts: OrderedDict[Hashable, Any] = OrderedDict()
        self.turns: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()


class Snapshot:
    """One state of the tables; every row read through it belongs to `data_version`."""

    def __init__(self, connection: AsyncConnection, state: State, memory: _Memory, patience_s: float) -> None:
        """`patience_s`: how long `once` waits for whoever counts the same."""
        self._connection, self._memory, self.state, self._patience_s = connection, memory, state, patience_s
        self.data_version = state.data_version

    async def rows(self, statement: sa.Select[Any]) -> _Rows:
        rows: _Rows = (await self._connection.execute(statement)).all()
        return rows

    async def remembered(self, key: Hashable, statement: sa.Select[Any]) -> _Rows:
        """The rows of a statement that counts many books; see `once`."""
        return await self.once(key, lambda: self.rows(statement))

    async def once(self, key: Hashable, count: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `count`, which is called once for each state of the tables and cached under `key`. Only for
        results that change only with the data version. Concurrent calls with the same key wait for the first."""
        name = self.state.stamp, key
        turn = self._memory.turns.setdefault(name, asyncio.Lock())
        try:
            async with asyncio.timeout(self._patience_s):
                await turn.acquire()
        except TimeoutError as error:  # not a Postgres that is silent
            detail = "Others wait for the same counts. Retry in a few seconds."
            raise problems.Problem("busy", detail, {"Retry-After": "2"}) from error
        try:
            if name not in self._memory.counts:
                self._memory.counts[name] = await count()
                while len(self._memory.counts) > _MOST_REMEMBERED:
                    self._memory.counts.popitem(last=False)
            known: _T = self._memory.counts[name]
            return known
        finally:
            turn.release()


class Catalogue:
    """The pool of connections to the books; connects on first use.

    Attributes:
        watch: knows the newest version read.
        searches, facets, figures: bulkheads for slow requests of these kinds. Together they have fewer slots than the
            pool has connections: three are always left for fast requests and for /ready.
    """

    def __init__(self, database_url: str, watch: DataWatch) -> None:
        self._engine = open_engine(database_url, POOL_SIZE, "REPEATABLE READ", is_read_only=True)
        self.watch = watch
        self.searches = Bulkhead("searches", slots=3, patience_s=ANSWER_TIMEOUT_S)
        self.facets = Bulkhead("counts of facets", slots=2, patience_s=PATIENCE_S)
        self.figures = Bulkhead("counts over all books", slots=2, patience_s=PATIENCE_S)
        self._memory = _Memory()

    @asynccontextmanager
    async def snapshot(self, bulkhead: Bulkhead | None = None) -> AsyncIterator[Snapshot]:
        """Read within one state of the tables; `bulkhead`: one of the above, for slow queries.

        Raises:
            DatabaseUnavailable: Postgres refused, broke off, was too slow, or has no tables yet.
            Problem: 503 `busy`, the bulkhead has no free slot.
        """
        slot = bulkhead.slot() if bulkhead is not None else nullcontext()
        within_s = bulkhead.patience_s if bulkhead is not None else ANSWER_TIMEOUT_S
        async with slot, connected(self._engine, self.watch, "The books", within_s) as connection:
            if within_s > ANSWER_TIMEOUT_S:
                await connection.execute(be_patient(within_s))
            state = state_of((await connection.execute(select_state())).one_or_none())
            self.watch.saw(state.data_version)
            yield Snapshot(connection, state, self._memory, 0.75 * within_s)

    async def rows(self, statement: sa.Select[Any], parameters: Mapping[str, Any]) -> _Rows:
        """The rows of one statement, from whatever state the tables have now.

        Raises:
            DatabaseUnavailable: see `snapshot`.
        """
        async with connected(self._engine, self.watch, "The books") as connection:
            rows: _Rows = (await connection.execute(statement, parameters)).all()
            return rows

    async def close(self) -> None:
        await self._engine.dispose()
