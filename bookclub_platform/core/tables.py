"""Book -> schema `bookclub` in Postgres -> rows for the model and the API: the schema and the only SQL.

Writes take a connection inside a transaction and run at once. Reads come as statements, so that the Dagster side runs
them on a synchronous connection and serving on an asynchronous one. Values are always bound parameters.

    books               one row per book, the state at its last sighting
    book_observations   one row per book per crawl that saw it: the history of price, rating and stock
    rejected_books      pages that gave no book, with the rule that they broke, the reason and where the page lies
    loads               one row per load that changed `books`; its highest id is the data version
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.rules import constraints

SCHEMA = "bookclub"
metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)
_moment = sa.DateTime(timezone=True)


def _checks(*held: str) -> list[sa.CheckConstraint]:
    """The rules of a row, as far as they speak of the columns `held`."""
    return [sa.CheckConstraint(condition, name=name) for name, condition in constraints(Book, held).items()]


books = sa.Table(
    "books",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("source_id", sa.Text, nullable=False),
    sa.Column("upc", sa.Text),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("category_name", sa.Text, nullable=False),
    sa.Column("price", sa.Numeric(10, 2), nullable=False),
    sa.Column("currency", sa.CHAR(3), nullable=False),
    sa.Column("rating", sa.SmallInteger),
    sa.Column("stock", sa.Integer),
    sa.Column("in_stock", sa.Boolean, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("num_reviews", sa.Integer),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("image_url", sa.Text),
    sa.Column("first_seen_at", _moment, nullable=False),
    sa.Column("last_seen_at", _moment, nullable=False),
    sa.Column("updated_at", _moment, nullable=False),
    sa.Column("delisted_at", _moment),
    sa.UniqueConstraint("source", "source_id", name="uq_books_source_source_id"),
    *_checks(*Book.__dataclass_fields__),
    sa.Index(None, "category", "id"),
)

book_observations = sa.Table(
    "book_observations",
    metadata,
    sa.Column("book_id", sa.BigInteger, sa.ForeignKey(books.c.id), primary_key=True),
    sa.Column("crawl_id", sa.Text, primary_key=True),
    sa.Column("seen_at", _moment, nullable=False),
    sa.Column("price", sa.Numeric(10, 2), nullable=False),
    sa.Column("rating", sa.SmallInteger),
    sa.Column("stock", sa.Integer),
    *_checks("price", "rating", "stock"),
)

rejected_books = sa.Table(
    "rejected_books",
    metadata,
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("crawl_id", sa.Text, primary_key=True),
    sa.Column("url", sa.Text, primary_key=True),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("seen_at", _moment, nullable=False),
    sa.Column("raw_page", sa.Text),
    sa.Column("rule", sa.Text, nullable=False),
)

loads = sa.Table(
    "loads",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("crawl_id", sa.Text, nullable=False),
    sa.Column("loaded_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.Column("inserted", sa.Integer, nullable=False),
    sa.Column("updated", sa.Integer, nullable=False),
    sa.Column("delisted", sa.Integer, nullable=False),
)

# What a shop can change about a book; a difference in any of these is an update, anything else only a sighting.
_KEY = ["source", "source_id"]
_CONTENT = [name for name in Book.__dataclass_fields__ if name not in {*_KEY, "seen_at"}]
# A crawl that finds less than this share of the category's books is more likely a sick shop than a sold-out one.
LEAST_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load did to `books`, in rows.

    Attributes:
        is_shrunken: the crawl found so few of the category's books that it was not believed, and nothing was delisted.
    """

    inserted: int
    updated: int
    unchanged: int
    delisted: int
    rejected: int
    is_shrunken: bool = False


def load_category(
    connection: sa.Connection,
    source: str,
    category: str | None,
    crawl_id: str,
    seen: Sequence[Book],
    rejected: Sequence[RejectedBook],
    crawled_at: datetime,
    is_complete: bool = True,
    least_share: float = LEAST_SHARE,
) -> LoadResult:
    """Bring `books` to what one crawl of one category saw, or of the whole source where `category` is None and each
    row brings its own. Running it twice changes nothing.

    Call it inside a transaction: all of it holds or none. Books of the category that a complete crawl did not see are
    marked as delisted; one whose page was rejected was seen, so its last good row stays as it is. A crawl that is not
    complete proves nothing about what it did not see, and delists nothing; nor does one that found fewer books than
    `least_share` of those that the category has (0: a person has looked, and the books are gone).
    """
    _wait_for_turn(connection, f"{source}/{category or ''}")
    incoming = _stage(connection, seen)
    listed = connection.execute(select_count(sa.select(books).where(_is_listed(source, category)))).scalar_one()
    is_shrunken = len(seen) + len(rejected) < least_share * listed
    inserted, updated = connection.execute(_count_changes(incoming)).one()
    connection.execute(_upsert(incoming))
    connection.execute(_observe(incoming, crawl_id))
    delisted = 0
    if is_complete and not is_shrunken:
        is_seen = sa.or_(
            books.c.source_id.in_(sa.select(incoming.c.source_id)), books.c.url.in_([row.url for row in rejected])
        )
        delisted = _delist(connection, source, category, crawled_at, is_seen)
    if rejected:
        rows = [asdict(row) | {"crawl_id": crawl_id} for row in rejected]
        connection.execute(insert(rejected_books).on_conflict_do_nothing(), rows)
    _note_load(connection, source, category or source, crawl_id, inserted, updated, delisted)
    return LoadResult(inserted, updated, len(seen) - inserted - updated, delisted, len(rejected), is_shrunken)


def retire_category(connection: sa.Connection, source: str, category: str, crawl_id: str, gone_at: datetime) -> int:
    """Mark every book of a category that the shop no longer has -> how many. Call it inside a transaction.

    A book that was seen elsewhere has that category by now, and stays; so does one that was seen after `gone_at`.
    """
    _wait_for_turn(connection, f"{source}/{category}")
    delisted = _delist(connection, source, category, gone_at)
    _note_load(connection, source, category, crawl_id, 0, 0, delisted)
    return delisted


def _wait_for_turn(connection: sa.Connection, name: str) -> None:
    """Two loads of one category queue up; the lock goes with the transaction."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0))))


def _stage(connection: sa.Connection, seen: Sequence[Book]) -> sa.Table:
    """`seen` as a temporary table, by COPY: row-wise inserts are tens of times slower."""
    names = list(Book.__dataclass_fields__)
    stored = ["last_seen_at" if name == "seen_at" else name for name in names]
    columns = [sa.Column(name, books.c[name].type) for name in stored]
    incoming = sa.Table("incoming", sa.MetaData(), *columns, prefixes=["TEMPORARY"], postgresql_on_commit="DROP")
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.incoming"))
    incoming.create(connection)
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(f"COPY pg_temp.incoming ({', '.join(stored)}) FROM STDIN") as copy:
        for book in seen:
            copy.write_row([getattr(book, name) for name in names])
    return incoming


def _differs(new: Any) -> sa.ColumnElement[bool]:
    before = sa.tuple_(*(books.c[name] for name in _CONTENT))
    return sa.or_(
        before.is_distinct_from(sa.tuple_(*(new[name] for name in _CONTENT))), books.c.delisted_at.is_not(None)
    )


def _count_changes(incoming: sa.Table) -> sa.Select[int, int]:
    same_key = sa.and_(*(books.c[name] == incoming.c[name] for name in _KEY))
    is_new = books.c.id.is_(None)
    return sa.select(
        sa.func.count().filter(is_new),
        sa.func.count().filter(sa.and_(sa.not_(is_new), _differs(incoming.c))),
    ).select_from(incoming.outerjoin(books, same_key))


def _upsert(incoming: sa.Table) -> sa.Insert:
    new = [*_KEY, *_CONTENT]
    stamps = ["first_seen_at", "last_seen_at", "updated_at"]
    rows = sa.select(
        *(incoming.c[name] for name in new), *(incoming.c.last_seen_at.label(stamp) for stamp in stamps)
    ).order_by(incoming.c.source_id)  # pages come in any order; the same shop gives the same ids
    statement = insert(books).from_select([*new, *stamps], rows)
    excluded = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={name: excluded[name] for name in _CONTENT}
        | {
            "last_seen_at": sa.func.greatest(books.c.last_seen_at, excluded.last_seen_at),
            "updated_at": sa.case((_differs(excluded), excluded.last_seen_at), else_=books.c.updated_at),
            "delisted_at": None,
        },
    )


def _observe(incoming: sa.Table, crawl_id: str) -> sa.Insert:
    same_key = sa.and_(*(books.c[name] == incoming.c[name] for name in _KEY))
    seen = sa.select(
        books.c.id, sa.literal(crawl_id), incoming.c.last_seen_at, incoming.c.price, incoming.c.rating, incoming.c.stock
    ).select_from(incoming.join(books, same_key))
    columns = ["book_id", "crawl_id", "seen_at", "price", "rating", "stock"]
    return insert(book_observations).from_select(columns, seen).on_conflict_do_nothing()


def _is_listed(source: str, category: str | None) -> sa.ColumnElement[bool]:
    is_inside = sa.true() if category is None else books.c.category == category
    return sa.and_(books.c.source == source, is_inside, books.c.delisted_at.is_(None))


def _delist(
    connection: sa.Connection,
    source: str,
    category: str | None,
    gone_at: datetime,
    is_seen: sa.ColumnElement[bool] | None = None,
) -> int:
    unseen = sa.and_(_is_listed(source, category), books.c.last_seen_at <= gone_at)
    if is_seen is not None:
        unseen = sa.and_(unseen, sa.not_(is_seen))
    return connection.execute(sa.update(books).where(unseen).values(delisted_at=gone_at, updated_at=gone_at)).rowcount


def _note_load(
    connection: sa.Connection, source: str, category: str, crawl_id: str, inserted: int, updated: int, delisted: int
) -> None:
    """A row in `loads` if `books` changed."""
    if not (inserted or updated or delisted):
        return
    # Commits must come in the order of the ids, or a reader could cache a version that still grows.
    connection.execute(sa.text(f"LOCK TABLE {SCHEMA}.loads IN SHARE ROW EXCLUSIVE MODE"))
    connection.execute(
        sa.insert(loads).values(
            source=source, category=category, crawl_id=crawl_id, inserted=inserted, updated=updated, delisted=delisted
        )
    )


def select_data_version() -> sa.Select[int]:
    """The highest id of `loads`: grows with every change of `books`; 0 while there is none."""
    return sa.select(sa.func.coalesce(sa.func.max(loads.c.id), 0))


def select_training_rows() -> sa.Select[Any]:
    """(id, title, description, category, category_name) of every listed book, in order of id."""
    names = ["id", "title", "description", "category", "category_name"]
    return sa.select(*(books.c[name] for name in names)).where(books.c.delisted_at.is_(None)).order_by(books.c.id)


def select_books(category: str | None = None, in_stock: bool | None = None) -> sa.Select[Any]:
    """Every column of the listed books that pass the filters, in order of id."""
    statement = sa.select(books).where(books.c.delisted_at.is_(None)).order_by(books.c.id)
    if category is not None:
        statement = statement.where(books.c.category == category)
    if in_stock is not None:
        statement = statement.where(books.c.in_stock == in_stock)
    return statement


def select_page(chosen: sa.Select[Any], after_id: int | None, limit: int) -> sa.Select[Any]:
    """The first `limit` rows of `chosen` (from select_books) whose id is above `after_id`."""
    return (chosen if after_id is None else chosen.where(books.c.id > after_id)).limit(limit)


def select_count(chosen: sa.Select[Any]) -> sa.Select[int]:
    """How many rows `chosen` (from select_books) has."""
    return chosen.with_only_columns(sa.func.count()).order_by(None)


def select_book(book_id: int) -> sa.Select[Any]:
    """The book with that id, delisted or not."""
    return sa.select(books).where(books.c.id == book_id)


def select_listed(ids: Sequence[int]) -> sa.Select[Any]:
    """The books among `ids` that are not delisted, in no order."""
    return (
        sa.select(books)
        .where(books.c.id == sa.func.any(sa.literal(list(ids), sa.ARRAY(sa.BigInteger))))
        .where(books.c.delisted_at.is_(None))
    )


def select_categories() -> sa.Select[Any]:
    """(category, category_name, books, in_stock) of every category with a listed book, by name."""
    return (
        sa.select(
            books.c.category,
            books.c.category_name,
            sa.func.count().label("books"),
            sa.func.count().filter(books.c.in_stock).label("in_stock"),
        )
        .where(books.c.delisted_at.is_(None))
        .group_by(books.c.category, books.c.category_name)
        .order_by(books.c.category_name)
    )
