"""Filters and an order -> the statements behind a page of books: its rows, the total, and its facets.

    statement = select_sorted(Filters(category="travel", max_price=Decimal(20)), "-price", after=None, limit=20)

All of them cover listed books only. A page begins after a Position (the sort key and id of the last book before it), so
books that are added or removed in between cause no repeated or skipped ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from bookclub_platform.core.tables import IS_LISTED, ORDERS, books, is_among

Sort = Literal["id", "price", "-price", "rating", "-rating", "title", "-first_seen"]
SearchSort = Literal["relevance", "id", "price", "-price", "rating", "-rating", "title", "-first_seen"]
Facet = Literal["category", "rating", "price", "in_stock"]
# The lower ends of the price bands; the last has no upper end.
PRICE_BANDS = tuple(Decimal(edge) for edge in (0, 10, 20, 30, 40, 50, 75, 100, 200, 500))
_CENT = Decimal("0.01")
_KEYS: dict[Sort, sa.ColumnElement[Any]] = {
    "price": ORDERS["price"],
    "-price": ORDERS["price"],
    "rating": ORDERS["rating"],
    "-rating": ORDERS["rating_down"],
    "title": ORDERS["title"],
    "-first_seen": ORDERS["first_seen"],
}


class Filters(NamedTuple):  # a cache key: hashing a frozen dataclass takes three times as long
    """Which books; None: all. Prices are compared as numbers, whatever the currency; ranges include both ends."""

    category: str | None = None
    source: str | None = None
    min_price: Decimal | None = None
    max_price: Decimal | None = None
    min_rating: int | None = None
    in_stock: bool | None = None


IN_STOCK = Filters(in_stock=True)  # the filter of nearly every list


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the id of its last book, and that book's sort key (None if ordered by id)."""

    book_id: int
    key: Decimal | int | str | datetime | None = None


def select_sorted(filters: Filters, sort: Sort, after: Position | None, limit: int) -> sa.Select[Any]:
    """Every column of the first `limit` books after that position, and their sort key as `sort_key`.

    Ties are ordered by id, in a descending order from the highest id down: one index serves both directions."""
    is_down = sort.startswith("-")
    order = [books.c.id] if sort == "id" else [_KEYS[sort], books.c.id]
    statement = sa.select(books, (sa.null() if sort == "id" else _KEYS[sort]).label("sort_key")).where(*_where(filters))
    if after is not None:
        here = [after.book_id] if sort == "id" else [after.key, after.book_id]
        place = sa.tuple_(*(sa.literal(value, column.type) for value, column in zip(here, order, strict=True)))
        statement = statement.where(sa.tuple_(*order) < place if is_down else sa.tuple_(*order) > place)
    return statement.order_by(*(column.desc() if is_down else column for column in order)).limit(limit)


def select_total(filters: Filters) -> sa.Select[Any]:
    """One row: how many books pass the filters."""
    return sa.select(sa.func.count()).select_from(books).where(*_where(filters))


def select_source_range() -> sa.Select[Any]:
    """One row: the alphabetically first and last source of listed books; read from the ends of an index."""
    ends = sa.func.min(books.c.source).label("first"), sa.func.max(books.c.source).label("last")
    return sa.select(*ends).where(IS_LISTED)


def select_found(ids: Sequence[int], filters: Filters, sort: Sort | None) -> sa.Select[Any]:
    """(id,) of the listed books among `ids` that pass the filters, in the order of `select_sorted`; None: unordered."""
    statement = sa.select(books.c.id).where(is_among(ids), *_where(filters))
    if sort is None:
        return statement
    order = [books.c.id] if sort == "id" else [_KEYS[sort], books.c.id]
    return statement.order_by(*(column.desc() if sort.startswith("-") else column for column in order))


def select_facet(filters: Filters, facet: Facet, among: Sequence[int] | None = None) -> sa.Select[Any]:
    """(value, books) for each value of the facet, over the books (only those in `among`, if given) that pass all
    filters except those on the facet itself, so that the alternatives to the current choice have counts too. The
    category comes with its name; the price as the number of its band, from 1."""
    match facet:
        case "category":
            others = filters._replace(category=None)
            name = sa.func.min(books.c.category_name).label("name")
            counted = sa.select(books.c.category.label("value"), name, _COUNT).order_by(_COUNT.desc(), "value")
        case "rating":
            others = filters._replace(min_rating=None)
            counted = sa.select(books.c.rating.label("value"), _COUNT).order_by(sa.desc("value").nulls_last())
        case "price":
            others = filters._replace(min_price=None, max_price=None)
            counted = sa.select(price_band().label("value"), _COUNT).order_by("value")
        case "in_stock":
            others = filters._replace(in_stock=None)
            counted = sa.select(books.c.in_stock.label("value"), _COUNT).order_by(sa.desc("value"))
    if among is not None:
        counted = counted.where(is_among(among))
    return counted.where(*_where(others)).group_by("value")


def price_band() -> sa.ColumnElement[int]:
    """The number of the price band of a book: 1 for the first of PRICE_BANDS."""
    edges = sa.literal(list(PRICE_BANDS), sa.ARRAY(sa.Numeric(10, 2)))
    return sa.func.width_bucket(books.c.price, edges, type_=sa.Integer)


def band_ends(number: int) -> tuple[Decimal, Decimal | None]:
    """The lowest and the highest price of the band `number`, as filters take them; None: no upper limit."""
    return PRICE_BANDS[number - 1], PRICE_BANDS[number] - _CENT if number < len(PRICE_BANDS) else None


_COUNT = sa.func.count().label("books")


def _where(filters: Filters) -> list[sa.ColumnElement[bool]]:
    given = [
        (books.c.category.__eq__, filters.category),
        (books.c.source.__eq__, filters.source),
        (books.c.price.__ge__, filters.min_price),
        (books.c.price.__le__, filters.max_price),
        (books.c.rating.__ge__, filters.min_rating),
        (books.c.in_stock.__eq__, filters.in_stock),
    ]
    return [IS_LISTED, *(compare(value) for compare, value in given if value is not None)]
