"""What readers did with recommendations -> table `bookclub.feedback`, and the most popular books of late.

    with engine.begin() as connection:
        add_events(connection, user_id, [Event(...)]); forget_events(connection, older_than=timedelta(days=400))

An event is stored once: the reporting account gives it an id of its own choosing, and the first event with an id stays.
An event names the model, its version and the state of the catalogue that recommended the book, so that models can be
judged. The reader is the account itself, or one of the readers on whose behalf it reports; only a hash of the
account's name for a reader is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bookclub_platform.core.accounts import users
from bookclub_platform.core.tables import IS_LISTED, books, metadata

Kind = Literal["shown", "clicked", "liked", "swapped"]
INTEREST: tuple[Kind, ...] = ("clicked", "liked", "swapped")  # actions that show interest in a book
LIKING: tuple[Kind, ...] = ("liked", "swapped")  # actions that show that a reader liked a book
# Limits per reader, so low that no reader can outweigh many.
MOST_LIKES, MOST_CLICKS = 30, 300
POPULAR_FOR = timedelta(days=30)
FORGOTTEN_AT_ONCE = 100_000  # takes a second or two
_moment = sa.DateTime(timezone=True)
_kinds = ", ".join(f"'{kind}'" for kind in get_args(Kind))

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("user_id", sa.BigInteger, sa.ForeignKey(users.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("event_id", sa.Uuid, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("model_version", sa.Text, nullable=False),
    sa.Column("data_version", sa.BigInteger, nullable=False),
    sa.Column("book_id", sa.BigInteger, sa.ForeignKey(books.c.id), nullable=False),
    sa.Column("for_book_id", sa.BigInteger, sa.ForeignKey(books.c.id)),
    sa.Column("position", sa.SmallInteger),
    sa.Column("reader", sa.LargeBinary),
    sa.Column("happened_at", _moment, nullable=False, index=True),
    sa.Column("received_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.CheckConstraint(f"kind IN ({_kinds})", name="kind"),
    sa.CheckConstraint("position BETWEEN 1 AND 100", name="position"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """One action of one reader on one recommended book.

    Attributes:
        for_book_id: the book that it was recommended for; None if it was for several, or for a text.
        position: its place in the list, from 1.
        happened_at: UTC.
        reader: the account's name for the reader, if it reports for many; None: the account itself.
    """

    event_id: UUID
    kind: Kind
    model: str
    model_version: str
    data_version: int
    book_id: int
    for_book_id: int | None
    position: int | None
    happened_at: datetime
    reader: str | None = None


def add_events(connection: sa.Connection, user_id: int, events: Sequence[Event]) -> set[UUID]:
    """Store the events that this account has not reported before; return their ids. All books must be known."""
    rows = [asdict(event) | {"user_id": user_id, "reader": _digest(user_id, event.reader)} for event in events]
    kept = insert(feedback).on_conflict_do_nothing().returning(feedback.c.event_id)
    return set(connection.scalars(kept.values(rows)))


def _digest(user_id: int, reader: str | None) -> bytes | None:
    """Hash the reader with the account, so that readers of two shops with the same name are kept apart."""
    return None if reader is None else hashlib.sha256(f"{user_id}:{reader}".encode()).digest()


def select_popular(limit: int) -> sa.Select[Any]:
    """(book_id, interest) of the listed books that most readers wanted in the last POPULAR_FOR, the most wanted first:
    `interest` is how many readers clicked, liked or swapped the book. A reader counts once, however often they did so.
    An account is one reader, or as many as it named; disabled accounts do not count."""
    since = sa.func.now() - sa.literal(POPULAR_FOR, sa.Interval)
    interest = sa.func.count().label("interest")
    wanted = (
        sa.select(feedback.c.book_id, feedback.c.user_id, feedback.c.reader)
        .where(feedback.c.happened_at > since, feedback.c.kind.in_(INTEREST))
        .distinct()  # uses a hash: count(DISTINCT ...) would sort all events
        .subquery()
    )
    return (
        sa.select(wanted.c.book_id, interest)
        .join(users, users.c.id == wanted.c.user_id)
        .join(books, books.c.id == wanted.c.book_id)
        .where(users.c.disabled_at.is_(None), IS_LISTED)
        .group_by(wanted.c.book_id)
        .order_by(interest.desc(), wanted.c.book_id)
        .limit(limit)
    )


def forget_events(connection: sa.Connection, older_than: timedelta, at_most: int = FORGOTTEN_AT_ONCE) -> int:
    """Delete events that happened longer than `older_than` ago, at most `at_most`; return how many."""
    old = sa.select(feedback.c.user_id, feedback.c.event_id).where(feedback.c.happened_at < sa.func.now() - older_than)
    named = sa.tuple_(feedback.c.user_id, feedback.c.event_id)
    return connection.execute(sa.delete(feedback).where(named.in_(old.limit(at_most)))).rowcount


def select_steps() -> sa.Select[Any]:
    """(reader, book_id, for_book_id, is_liking) of the actions of readers, without duplicates: the newest MOST_LIKES
    likes and swaps of a reader, and the newest MOST_CLICKS clicks, which show how they came to a book. A reader,
    numbered from 1, is one named by an account, or else the account itself. Disabled accounts are left out.
    """
    is_liking = feedback.c.kind.in_(LIKING)
    told = (
        feedback.c.user_id,
        feedback.c.reader,
        feedback.c.book_id,
        feedback.c.for_book_id,
        is_liking.label("is_liking"),
    )
    steps = (
        # By our clock: happened_at is the account's claim.
        sa.select(*told, sa.func.max(feedback.c.received_at).label("told_at"))
        .join(users, users.c.id == feedback.c.user_id)
        .where(feedback.c.kind.in_(INTEREST), users.c.disabled_at.is_(None))
        .group_by(*told)
        .subquery()
    )
    who = (steps.c.user_id, steps.c.reader)
    newest = sa.func.row_number().over(
        partition_by=(*who, steps.c.is_liking),
        order_by=(steps.c.told_at.desc(), steps.c.book_id, steps.c.for_book_id),
    )
    number = sa.func.dense_rank().over(order_by=who)
    ranked = sa.select(steps, newest.label("place"), number.label("number")).subquery()
    most = sa.case((ranked.c.is_liking, MOST_LIKES), else_=MOST_CLICKS)
    return sa.select(ranked.c.number, ranked.c.book_id, ranked.c.for_book_id, ranked.c.is_liking).where(
        ranked.c.place <= most
    )
