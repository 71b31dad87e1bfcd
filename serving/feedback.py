"""Events from a shop -> the table `feedback`, for the evaluation of models; and that table -> the most wanted books."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from bookclub_platform.core.feedback import Event, add_events, select_popular
from bookclub_platform.core.served_models import never_served
from bookclub_platform.core.tables import lacking, select_data_version, select_shelves
from serving.access.accounts import EndedSession
from serving.access.policies import of_feedback
from serving.access.quotas import SharedQuotas, Standing
from serving.access.rate_limit import quota_exceeded
from serving.database.catalogue import Catalogue
from serving.database.datawatch import DataWatch
from serving.database.postgres import connected, open_engine
from serving.http import problems
from serving.recommender.served import Served
from serving.schemas.requests import MAX_LIMIT, FeedbackEvent

POOL_SIZE = 2
COUNTED_FOR_S = 60.0  # counting a million events takes a second


class FeedbackStore:
    """The feedback in one database; connects on first use."""

    def __init__(
        self, database_url: str, watch: DataWatch, quotas: SharedQuotas, events_per_day: int, served: Served
    ) -> None:
        self._watch, self._quotas, self._per_day = watch, quotas, of_feedback(events_per_day)
        self._served = served
        self._engine = open_engine(database_url, POOL_SIZE, "READ COMMITTED", is_read_only=False)

    @contextmanager
    def counted(self, user_id: int, events: int, tell: Callable[[Standing], None]) -> Iterator[None]:
        """Wrap the storing of `events`, which count against the account's daily quota only if it ends without an
        error. `tell` is called at the end with the standing of that quota, if there is a limit.

        Raises:
            Problem: 429, the quota of events per day would be exceeded.
        """
        if not self._per_day.amount:
            yield
            return
        standing = self._quotas.take(self._per_day, str(user_id), events)
        if standing.is_over:
            raise quota_exceeded(standing, units=events)
        try:
            yield
        except BaseException:
            self._quotas.give_back(self._per_day, str(user_id), events)
            standing = self._quotas.take(self._per_day, str(user_id), 0)
            raise
        finally:
            tell(standing)

    async def add(self, user_id: int, told: Sequence[FeedbackEvent]) -> list[Event]:
        """Store the events that this account has not sent before; returns them. All or none are stored.

        Raises:
            InvalidRequest: a recommendation cannot have been given out here.
            UnknownBooks: an event is about a book that never existed.
            DatabaseUnavailable: nothing is stored; sending the events again is safe.
        """
        events = [_event(event) for event in told]
        ids = [book_id for event in events for book_id in (event.book_id, event.for_book_id) if book_id is not None]
        async with connected(self._engine, self._watch, "The feedback") as connection, connection.begin():
            if faults := await connection.run_sync(self._never_given_out, events):
                raise problems.InvalidRequest(faults)
            if unknown := lacking(ids, (await connection.execute(select_shelves(ids))).all()):
                raise problems.UnknownBooks(unknown)
            try:
                kept = await connection.run_sync(add_events, user_id, events)
            except sa.exc.IntegrityError as error:  # the account was deleted a moment ago
                raise EndedSession("This account has been deleted.") from error
        return [
            event for event in {event.event_id: event for event in reversed(events)}.values() if event.event_id in kept
        ]

    def _never_given_out(self, connection: sa.Connection, events: Sequence[Event]) -> list[problems.Fault]:
        """A fault for each recommendation that cannot have been given out, with its place in the request."""
        # The versions that this process serves may not be in the table yet, if Postgres was unavailable.
        asked = {(event.model, event.model_version) for event in events} - self._served.versions
        never, newest = never_served(connection, asked), connection.execute(select_data_version()).scalar_one()
        faults: list[problems.Fault] = []
        for place, event in enumerate(events):
            why = ""
            if (event.model, event.model_version) in never:
                why = f"{event.model}/{event.model_version} has never answered here"
            elif event.data_version > newest:
                why = f"Data version {event.data_version} does not exist yet, the newest is {newest}"
            if why:
                loc = ["body", "events", str(place), "recommendation_id"]
                faults.append({"loc": loc, "msg": why, "code": "never_given_out"})
        return faults

    async def close(self) -> None:
        await self._engine.dispose()


class Popular:
    """The books that readers want, counted once a minute."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._counting: asyncio.Task[Mapping[int, int]] | None = None
        self._interest: Mapping[int, int] = {}
        self._counted_at = float("-inf")

    async def interest(self) -> Mapping[int, int]:
        """Book id -> how many readers want it, highest first. It has more books than any list, because some may be
        delisted meanwhile. An empty result is not cached.

        Raises:
            DatabaseUnavailable: the events cannot be counted now.
        """
        if self._interest and time.monotonic() - self._counted_at <= COUNTED_FOR_S:
            return self._interest
        if self._counting is None or self._counting.done():  # concurrent callers share one count, even a failing one
            self._counting = asyncio.create_task(self._count())
        return await asyncio.shield(self._counting)

    async def _count(self) -> Mapping[int, int]:
        async with self._catalogue.snapshot(self._catalogue.figures) as snapshot:
            rows = await snapshot.rows(select_popular(2 * MAX_LIMIT))
        self._interest, self._counted_at = {row.book_id: row.interest for row in rows}, time.monotonic()
        return self._interest


def _event(told: FeedbackEvent) -> Event:
    model, _, rest = told.recommendation_id.partition("/")
    version, _, data_version = rest.partition("@")
    return Event(
        event_id=told.event_id,
        kind=told.kind,
        model=model,
        model_version=version,
        data_version=int(data_version),
        book_id=told.book_id,
        for_book_id=told.for_book_id,
        position=told.position,
        happened_at=datetime.now(UTC) - timedelta(seconds=told.seconds_ago),
        reader=told.reader,
    )
