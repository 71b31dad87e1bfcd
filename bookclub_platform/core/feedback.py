"""What readers did with recommendations -> table `bookclub.feedback`, and which books they liked best lately.

    with engine.begin() as connection:
        add_events(connection, user_id, [Event(...)]); forget_events(connection, older_than=timedelta(days=400))

An event is kept once: the account that tells it names it by an id of its own choosing, and the first one stays. It says
which model in which version, on which state of the catalogue, had recommended the book, so that models can be judged.
Who did it is the account, or one of the readers that it tells for: of what it calls them a hash is kept, and no more.
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
INTEREST: tuple[Kind, ...] = ("clicked", "liked", "swapped")  # what somebody did who wanted the book
LIKING: tuple[Kind, ...] = ("liked", "swapped")  # what says that a book was to somebody's taste
# Of one reader: so few books that none can speak for many.
MOST_LIKES, MOST_CLICKS = 30, 300
POPULAR_FOR = timedelta(days=30)
FORGOTTEN_AT_ONCE = 100_000  # in a second or two
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
    """One thing that one reader did with one recommended book.

    Attributes:
        for_book_id: the book that it was recommended for; None where it was for several, or for a text.
        position: its place in the list, from 1.
        happened_at: UTC.
        reader: what the account calls the reader, where it tells for many; None: the account itself.
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
    """Keep those events that this account has not told before; returns their ids. All books must be known."""
    rows = [asdict(event) | {"user_id": user_id, "reader": _digest(user_id, event.reader)} for event in events]
    kept = insert(feedback).on_conflict_do_nothing().returning(feedback.c.event_id)
    return set(connection.scalars(kept.values(rows)))


def _digest(user_id: int, reader: str | None) -> bytes | None:
    """With the account, so that readers whom two shops call alike are not taken for one."""
    return None if reader is None else hashlib.sha256(f"{user_id}:{reader}".encode()).digest()


def select_popular(limit: int) -> sa.Select[Any]:
    """(book_id, interest) of the listed books that most readers wanted in the last POPULAR_FOR, the most first:
    `interest` is how many readers clicked, liked or swapped it. One who does so again and again counts once. An account
    is one reader, or as many as it names; one that is disabled counts as none."""
    since = sa.func.now() - sa.literal(POPULAR_FOR, sa.Interval)
    interest = sa.func.count().label("interest")
    wanted = (
        sa.select(feedback.c.book_id, feedback.c.user_id, feedback.c.reader)
        .where(feedback.c.happened_at > since, feedback.c.kind.in_(INTEREST))
        .distinct()  # by hashing: count(DISTINCT ...) sorts all events
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
    """Delete events that happened so long ago, `at_most` so many; returns how many."""
    old = sa.select(feedback.c.user_id, feedback.c.event_id).where(feedback.c.happened_at < sa.func.now() - older_than)
    named = sa.tuple_(feedback.c.user_id, feedback.c.event_id)
    return connection.execute(sa.delete(feedback).where(named.in_(old.limit(at_most)))).rowcount


def select_steps() -> sa.Select[Any]:
    """(reader, book_id, for_book_id, is_liking) of what readers did, once each: the newest MOST_LIKES likes and swaps
    of a reader, and the newest MOST_CLICKS clicks, which tell how they came to a book. A reader, numbered from 1, is
    whom an account names, or else the account. Disabled accounts tell nothing.
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
        # By our clock: the other is what the account said.
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
