"""Schema `bookclub` in Postgres -> rows for the model and the API: the tables, and the reads; core/loads.py and
ingest.py write.

Reads are statements, so that the Dagster side can run them on a synchronous connection and serving on an asynchronous
one. Values are always bound parameters. No constraint mentions NUL: Postgres text cannot contain one, so cleaning
removes it.

    books               one row per book, the state at its last sighting
    book_categories     the categories that list a book besides the one in its row
    book_observations   one row per book per crawl that saw it, never deleted: the history of price, rating and stock
    book_history        the same as a view: the previous values, and the period in which each state held
    rejected_books      pages that gave no book, with the rule that they broke, the reason and the page's location
    loads               one row per load that changed `books`; its highest id is the data version
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from bookclub_platform.core.book import Book
from bookclub_platform.core.rules import constraints

SCHEMA = "bookclub"
metadata = sa.MetaData(
    schema=SCHEMA,
    naming_convention={"ck": "ck_%(table_name)s_%(constraint_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"},
)
_moment = sa.DateTime(timezone=True)


def _checks(*held: str) -> list[sa.CheckConstraint]:
    """The rules of a row that concern only the columns `held`."""
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
    sa.CheckConstraint("first_seen_at <= last_seen_at", name="seen"),
    sa.Index(None, "category", "id"),
)
IS_LISTED = books.c.delisted_at.is_(None)
# The sort keys for pages of books, besides the id. None is ever null, so that one row comparison decides what comes
# after a book; books without stars are last in both directions. Titles are compared by their first 100 characters,
# since an index entry is limited, case-insensitively, and the same on every server whatever its locale.
ORDERS: dict[str, sa.ColumnElement[Any]] = {
    "price": books.c.price,
    "rating": sa.func.coalesce(books.c.rating, sa.literal_column("6")),
    "rating_down": sa.func.coalesce(books.c.rating, sa.literal_column("0")),
    "title": sa.func.left(
        sa.collate(sa.func.lower(books.c.title, type_=sa.Text), "C"), sa.literal_column("100"), type_=sa.Text
    ),
    "first_seen": books.c.first_seen_at,
}
for _name, _key in ORDERS.items():
    sa.Index(f"ix_books_by_{_name}", _key, books.c.id, postgresql_where=IS_LISTED)

book_categories = sa.Table(
    "book_categories",
    metadata,
    sa.Column("category", sa.Text, primary_key=True),
    sa.Column("book_id", sa.BigInteger, sa.ForeignKey(books.c.id), primary_key=True),
    sa.Column("category_name", sa.Text, nullable=False),
    sa.Column("last_seen_at", _moment, nullable=False),
    sa.CheckConstraint("category <> ''", name="category"),
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
    sa.CheckConstraint("inserted >= 0 AND updated >= 0 AND delisted >= 0", name="counts"),
    sa.CheckConstraint("inserted + updated + delisted > 0", name="change"),
)

_OBSERVED = ["price", "rating", "stock"]
# One row per row of book_observations; `is_change`: it differs from the previous one, or is the book's first.
book_history = sa.table(
    "book_history",
    *(sa.column(name, book_observations.c[name].type) for name in ["book_id", "crawl_id", "seen_at", *_OBSERVED]),
    *(sa.column(f"previous_{name}", book_observations.c[name].type) for name in _OBSERVED),
    sa.column("is_change", sa.Boolean),
    sa.column("held_from", _moment),
    sa.column("held_until", _moment),
    schema=SCHEMA,
)


def is_among(ids: Sequence[int]) -> sa.ColumnElement[bool]:
    """Whether a book is one of `ids`, passed as one parameter, however many they are."""
    return books.c.id == sa.func.any(sa.literal(list(ids), sa.ARRAY(sa.BigInteger)))


def select_data_version() -> sa.Select[int]:
    """The highest id of `loads`: grows with every change of `books`; 0 while there is none."""
    return sa.select(sa.func.coalesce(sa.func.max(loads.c.id), 0))


def select_state() -> sa.Select[Any]:
    """(data version, when it was loaded): no two states of `books` share both, neither in this database nor in another
    one that it replaced. No row while there is no version."""
    return sa.select(loads.c.id, loads.c.loaded_at).order_by(loads.c.id.desc()).limit(1)


def select_training_rows() -> sa.Select[Any]:
    """(id, title, description, category, category_name) of every listed book, in order of id."""
    names = ["id", "title", "description", "category", "category_name"]
    return sa.select(*(books.c[name] for name in names)).where(IS_LISTED).order_by(books.c.id)


def select_books(category: str | None = None) -> sa.Select[Any]:
    """Every column of the listed books (of a category), in order of id; core/browse.py has more filters and orders."""
    statement = sa.select(books).where(IS_LISTED).order_by(books.c.id)
    if category is not None:
        statement = statement.where(books.c.category == category)
    return statement


def select_count(chosen: sa.Select[Any]) -> sa.Select[int]:
    """How many rows `chosen` (from select_books) has."""
    return chosen.with_only_columns(sa.func.count()).order_by(None)


def select_book(book_id: int) -> sa.Select[Any]:
    """The book with that id, delisted or not."""
    return sa.select(books).where(books.c.id == book_id)


def select_last_seen() -> sa.Select[Any]:
    """(source, the last time that a book of it was seen) of each source, by name."""
    last = sa.func.max(books.c.last_seen_at)
    return sa.select(books.c.source, last).group_by(books.c.source).order_by(books.c.source)


def select_shelves(ids: Sequence[int]) -> sa.Select[Any]:
    """(id, category) of the books among `ids`, delisted or not, in no order."""
    return sa.select(books.c.id, books.c.category).where(is_among(ids))


def lacking(ids: Sequence[int], rows: Sequence[sa.Row[Any]]) -> list[int]:
    """Those of `ids` that are in no row, each once."""
    known = {row.id for row in rows}
    return [book_id for book_id in dict.fromkeys(ids) if book_id not in known]


def select_history(book_id: int) -> sa.Select[Any]:
    """(held_from, held_until, price, rating, stock and their three previous_ values) of each state of a book, in order
    of time. `held_until` is the first sighting of the next state, null for the current state."""
    names = ["held_from", "held_until", *_OBSERVED, *(f"previous_{name}" for name in _OBSERVED)]
    history = book_history.c
    return (
        sa.select(*(history[name] for name in names))
        .where(history.book_id == book_id, history.is_change)
        .order_by(history.held_from, history.crawl_id)
    )


def select_by_code(code: str) -> sa.Select[Any]:
    """(id,) of the listed books with that UPC or source id, also in upper or lower case, in order of id."""
    codes = {code, code.upper(), code.lower()}
    has_code = sa.or_(books.c.source_id.in_(codes), books.c.upc.in_(codes))
    return sa.select(books.c.id).where(has_code, IS_LISTED).order_by(books.c.id)


def select_listed(ids: Sequence[int]) -> sa.Select[Any]:
    """The books among `ids` that are not delisted, in no order."""
    return sa.select(books).where(is_among(ids), IS_LISTED)


def select_categories() -> sa.Select[Any]:
    """(category, category_name, books, in_stock) of every category with a listed book, by name."""
    return (
        sa.select(
            books.c.category,
            books.c.category_name,
            sa.func.count().label("books"),
            sa.func.count().filter(books.c.in_stock).label("in_stock"),
        )
        .where(IS_LISTED)
        .group_by(books.c.category, books.c.category_name)
        .order_by(books.c.category_name, books.c.category)
    )
