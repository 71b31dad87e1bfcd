"""What a source lists -> table `bookclub.categories`: which categories are live, which are retired, and by whom.

    with engine.begin() as connection:
        changes = note_listing(connection, "books_toscrape", listed, datetime.now(UTC))

The flag is stored here and not in Dagster: a partition that is deleted there loses its history in the UI
(dagster-io/dagster#33910), the API and `bookclub export` must see the flag too, and it has to change in one transaction
with the books.

A category is retired once it was missing from LEAST_ABSENCES listings in a row, over at least LEAST_ABSENT, if each of
them had LEAST_LISTED of the source's other live categories: a broken shop loses many at once, and recovers within a
day. A listing that is too short proves nothing, and does not count. A category that the shop lists again is restored
automatically, unless a person has retired it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bookclub_platform.core import loads, tables
from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import BookclubError

LEAST_ABSENCES = 3
LEAST_ABSENT = timedelta(days=1)
LEAST_LISTED = 0.8

_moment = sa.DateTime(timezone=True)

categories = sa.Table(
    "categories",
    tables.metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("category", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("first_listed_at", _moment, nullable=False),
    sa.Column("last_listed_at", _moment, nullable=False),
    sa.Column("absences", sa.Integer, nullable=False, server_default="0"),
    sa.Column("absent_since", _moment),
    sa.Column("retired_at", _moment),
    sa.Column("retired_by", sa.Text),
    sa.CheckConstraint("(retired_at IS NULL) = (retired_by IS NULL)", name="retired"),
    sa.CheckConstraint("retired_by IN ('shop', 'operator')", name="retired_by"),
)


class NoSuchCategory(BookclubError):
    """No source has ever listed the category."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What one listing changed.

    Attributes:
        restored: slugs that had been retired for their absence, and are listed again.
        retired: slug -> how many of its books were delisted.
        absent: slugs that are missing, but not yet for long enough.
        is_doubted: so much is missing that the listing was not trusted; no absence was counted.
    """

    restored: list[str] = field(default_factory=list)
    retired: dict[str, int] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    is_doubted: bool = False


def note_listing(connection: sa.Connection, source: str, listed: Sequence[Category], at: datetime) -> Changes:
    """Record what `source` listed at `at`; retire what has been absent long enough. Call it inside a transaction."""
    name = sa.literal(f"categories of {source}")
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))
    known = _known(connection, source)
    slugs = {category.slug for category in listed}
    restored = [slug for slug in known if slug in slugs and known[slug].retired_by == "shop"]
    if listed:
        _note_present(connection, source, listed, at)
    living = [slug for slug, row in known.items() if row.retired_at is None]
    absent = [slug for slug in living if slug not in slugs]
    if absent and (not slugs or len(living) - len(absent) < LEAST_LISTED * (len(living) - 1)):
        return Changes(restored=restored, absent=absent, is_doubted=True)
    retired = {}
    for slug in absent:
        since = known[slug].absent_since or at
        if known[slug].absences + 1 >= LEAST_ABSENCES and at - since >= LEAST_ABSENT:
            retired[slug] = retire(connection, source, slug, at, by="shop")
        else:
            row = sa.update(categories).where(_is(source, slug))
            connection.execute(row.values(absences=categories.c.absences + 1, absent_since=since))
    return Changes(restored, retired, [slug for slug in absent if slug not in retired])


def _known(connection: sa.Connection, source: str) -> Mapping[str, sa.Row[Any]]:
    rows = connection.execute(sa.select(categories).where(categories.c.source == source).order_by("category"))
    return {row.category: row for row in rows}


def _note_present(connection: sa.Connection, source: str, listed: Sequence[Category], at: datetime) -> None:
    rows = {
        category.slug: {
            "source": source,
            "category": category.slug,
            "name": category.name,
            "first_listed_at": at,
            "last_listed_at": at,
        }
        for category in listed
    }
    statement = insert(categories)
    new = statement.excluded
    is_by_operator = categories.c.retired_by == "operator"
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "category"],
            set_={
                "name": new.name,
                "last_listed_at": new.last_listed_at,
                "absences": 0,
                "absent_since": None,
                "retired_at": sa.case((is_by_operator, categories.c.retired_at), else_=None),
                "retired_by": sa.case((is_by_operator, categories.c.retired_by), else_=None),
            },
        ),
        list(rows.values()),
    )


def retire(connection: sa.Connection, source: str, category: str, at: datetime, by: Literal["shop", "operator"]) -> int:
    """Flag the category as retired and delist its books -> how many. Call it inside a transaction.

    Raises:
        NoSuchCategory: `source` has never listed it.
    """
    since = sa.case((categories.c.retired_by == by, categories.c.retired_at), else_=at)  # idempotent
    row = sa.update(categories).where(_is(source, category)).values(retired_at=since, retired_by=by)
    if not connection.execute(row).rowcount:
        raise _unknown(source, category)
    return loads.retire_category(connection, source, category, f"retired by {by} {at:%Y%m%dT%H%M%SZ}", at)


def retire_source(connection: sa.Connection, source: str, at: datetime) -> int:
    """Delist all books of a source that is collected no more -> how many. Call it inside a transaction.

    If the source is configured again, its next crawl lists them again.
    """
    delisted = sum(retire(connection, source, slug, at, by="shop") for slug in sorted(living_slugs(connection, source)))
    return delisted + loads.retire_category(connection, source, None, f"source retired {at:%Y%m%dT%H%M%SZ}", at)


def restore(connection: sa.Connection, source: str, category: str) -> int:
    """Remove the flag -> how many books are listed again. Call it inside a transaction.

    If a person had retired the category, its books are restored; if the shop had dropped it, they return with the next
    crawl.

    Raises:
        NoSuchCategory: `source` has never listed it.
    """
    before = connection.execute(sa.select(categories).where(_is(source, category)).with_for_update()).one_or_none()
    if before is None:
        raise _unknown(source, category)
    alive = {"retired_at": None, "retired_by": None, "absences": 0, "absent_since": None}
    connection.execute(sa.update(categories).where(_is(source, category)).values(alive))
    if before.retired_by != "operator":
        return 0
    crawl_id = f"restored {before.retired_at:%Y%m%dT%H%M%SZ}"
    return loads.relist_category(connection, source, category, crawl_id, before.retired_at)


def select_retired_everywhere() -> sa.Select[Any]:
    """(category,) of each category that no source has any more."""
    is_gone = sa.func.bool_and(categories.c.retired_at.is_not(None))
    return sa.select(categories.c.category).group_by(categories.c.category).having(is_gone)


def is_retired(connection: sa.Connection, source: str, category: str) -> bool:
    """Whether the category is retired. Locks the row until the transaction ends: otherwise a load could list again what
    is being retired."""
    retired_at = sa.select(categories.c.retired_at).where(_is(source, category)).with_for_update(read=True)
    return connection.scalar(retired_at) is not None


def retired_slugs(connection: sa.Connection, source: str | None) -> set[str]:
    """The retired categories of a source; None: those that all sources have retired."""
    if source is None:
        return set(connection.scalars(select_retired_everywhere()))
    is_gone = sa.and_(categories.c.source == source, categories.c.retired_at.is_not(None))
    return set(connection.scalars(sa.select(categories.c.category).where(is_gone)))


def living_slugs(connection: sa.Connection, source: str) -> set[str]:
    """The categories of a source that are not retired."""
    is_alive = sa.and_(categories.c.source == source, categories.c.retired_at.is_(None))
    return set(connection.scalars(sa.select(categories.c.category).where(is_alive)))


def select_states() -> sa.Select[Any]:
    """Every column of each category, with `books` (listed ones) and `last_crawl_at` (the newest sighting of a book)."""
    of_category = (tables.books.c.source == categories.c.source) & (tables.books.c.category == categories.c.category)
    return (
        sa.select(
            categories,
            sa.func.count(tables.books.c.id).filter(tables.IS_LISTED).label("books"),
            sa.func.max(tables.books.c.last_seen_at).label("last_crawl_at"),
        )
        .select_from(categories.outerjoin(tables.books, of_category))
        .group_by(*categories.primary_key)
        .order_by(categories.c.source, categories.c.category)
    )


def sources_of(connection: sa.Connection, category: str, source: str | None) -> list[str]:
    """The sources that have ever listed the category: all, or only `source`.

    Raises:
        NoSuchCategory: there is none.
    """
    chosen = sa.select(categories.c.source).where(categories.c.category == category).order_by(categories.c.source)
    found = [name for name in connection.scalars(chosen) if source in (None, name)]
    if not found:
        raise _unknown(source or "All sources", category)
    return found


def state_of(row: sa.Row[Any]) -> str:
    """The state of a row of `select_states`, for people."""
    if row.retired_at is not None:
        by = "its shop lists it no more" if row.retired_by == "shop" else "by hand"
        return f"retired {row.retired_at:%Y-%m-%d} ({by})"
    if row.absent_since is not None:
        return f"not listed since {row.absent_since:%Y-%m-%d %H:%M} ({row.absences} times in a row)"
    return "alive"


def _is(source: str, category: str) -> sa.ColumnElement[bool]:
    return sa.and_(categories.c.source == source, categories.c.category == category)


def _unknown(source: str, category: str) -> NoSuchCategory:
    return NoSuchCategory(f"{source}: no category {category!r} was ever listed. See `bookclub categories list`.")
