"""What readers did with recommendations -> table `bookclub.feedback`, and which books they liked best lately.

    with engine.begin() as connection:
        add_events(connection, user_id, [Event(...)])

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
from bookclub_platform.core.tables import books, metadata

Kind = Literal["shown", "clicked", "liked", "swapped"]
INTEREST: tuple[Kind, ...] = ("clicked", "liked", "swapped")  # what somebody did who wanted the book
LIKING: tuple[Kind, ...] = ("liked", "swapped")  # what says that a book was to somebody's taste
# Of one reader: so few books that none can speak for many.
MOST_LIKES, MOST_CLICKS = 30, 300
POPULAR_FOR = timedelta(days=30)
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


def unknown_books(connection: sa.Connection, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that no book has, listed or not."""
    asked = sa.literal(list(ids), sa.ARRAY(sa.BigInteger))
    known = set(connection.scalars(sa.select(books.c.id).where(books.c.id == sa.func.any(asked))))
    return [book_id for book_id in dict.fromkeys(ids) if book_id not in known]


def select_popular(limit: int) -> sa.Select[Any]:
    """Every column of the listed books that most was done with in the last POPULAR_FOR, and `interest`: how often one
    was clicked, liked or swapped; the most first."""
    since = sa.func.now() - sa.literal(POPULAR_FOR, sa.Interval)
    counted = (
        sa.select(feedback.c.book_id, sa.func.count().label("interest"))
        .where(feedback.c.happened_at > since, feedback.c.kind.in_(INTEREST))
        .group_by(feedback.c.book_id)
        .subquery()
    )
    return (
        sa.select(books, counted.c.interest)
        .join(counted, counted.c.book_id == books.c.id)
        .where(books.c.delisted_at.is_(None))
        .order_by(counted.c.interest.desc(), books.c.id)
        .limit(limit)
    )


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
