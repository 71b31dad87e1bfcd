"""Events that a shop tells -> the table `feedback`, for the evaluation of the models."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from bookclub_platform.core.feedback import Event, add_events, unknown_books
from serving import problems
from serving.postgres import connected, open_engine
from serving.questions import FeedbackEvent

POOL_SIZE = 2


class FeedbackBook:
    """The feedback in one database; connects when first asked."""

    def __init__(self, database_url: str) -> None:
        self._engine = open_engine(database_url, POOL_SIZE, "READ COMMITTED", is_read_only=False)

    async def add(self, user_id: int, told: Sequence[FeedbackEvent]) -> list[Event]:
        """Keep those that this account has not told before; returns them. All or none are kept.

        Raises:
            UnknownBooks: an event is about a book that never was.
            DatabaseUnavailable: nothing is kept; telling it again is safe.
        """
        events = [_event(event) for event in told]
        ids = [book_id for event in events for book_id in (event.book_id, event.for_book_id) if book_id is not None]
        async with connected(self._engine, "The feedback") as connection, connection.begin():
            if unknown := await connection.run_sync(unknown_books, ids):
                raise problems.UnknownBooks(unknown)
            kept = await connection.run_sync(add_events, user_id, events)
        return [
            event for event in {event.event_id: event for event in reversed(events)}.values() if event.event_id in kept
        ]

    async def close(self) -> None:
        await self._engine.dispose()


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
