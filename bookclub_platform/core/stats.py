"""Table `books` -> the figures of the catalogue as one API answer each: statements, read only, about listed books.

Prices are those of one currency (select_currencies of core/explore.py names the commonest first): the mean of pounds
and euros would be of neither.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from bookclub_platform.core.browse import price_band
from bookclub_platform.core.tables import books

_IS_LISTED = books.c.delisted_at.is_(None)
QUARTILES = (0.25, 0.5, 0.75)
STARS = (1, 2, 3, 4, 5)


def select_counts() -> sa.Select[Any]:
    """One row: listed, delisted, in_stock, categories, sources (their names, or null), first_seen_at, updated_at."""
    counts: list[Any] = [
        sa.func.count().filter(_IS_LISTED).label("listed"),
        sa.func.count().filter(sa.not_(_IS_LISTED)).label("delisted"),
        sa.func.count().filter(_IS_LISTED, books.c.in_stock).label("in_stock"),
        sa.func.count(books.c.category.distinct()).filter(_IS_LISTED).label("categories"),
        sa.func.array_agg(books.c.source.distinct()).filter(_IS_LISTED).label("sources"),
        sa.func.min(books.c.first_seen_at).label("first_seen_at"),
        sa.func.max(books.c.updated_at).label("updated_at"),
    ]
    return sa.select(*counts)


def select_figures(currency: str) -> sa.Select[Any]:
    """One row over all listed books: what _figures gives."""
    return sa.select(*_figures(currency)).where(_IS_LISTED)


def select_figures_by_category(currency: str) -> sa.Select[Any]:
    """(category, category_name, what _figures gives) of each category, by name."""
    name = sa.func.min(books.c.category_name).label("category_name")
    chosen = sa.select(books.c.category, name, *_figures(currency)).where(_IS_LISTED)
    return chosen.group_by(books.c.category).order_by("category_name", books.c.category)


def select_price_bands(currency: str) -> sa.Select[Any]:
    """(band, books) of the bands of core/browse.py that have a book, from the cheapest up."""
    columns: list[Any] = [price_band().label("band"), sa.func.count().label("books")]
    return sa.select(*columns).where(_IS_LISTED, books.c.currency == currency).group_by("band").order_by("band")


def _figures(currency: str) -> list[sa.ColumnElement[Any]]:
    """books, in_stock, copies (the sum of stock), priced (books with a price in the currency); low, high, mean and the
    three `quartiles` of those prices; mean_rating, the books with `stars` 1 to 5 as a list of five, unrated; and the
    `correlation` of price and stars (Pearson), null where either does not vary."""
    price = sa.case((books.c.currency == currency, sa.cast(books.c.price, sa.Double)))
    quartiles = sa.func.percentile_cont(sa.literal(list(QUARTILES), sa.ARRAY(sa.Double)), type_=sa.ARRAY(sa.Double))
    return [
        sa.func.count().label("books"),
        sa.func.count().filter(books.c.in_stock).label("in_stock"),
        sa.func.coalesce(sa.func.sum(books.c.stock), 0).label("copies"),
        sa.func.count(price).label("priced"),
        sa.func.min(price).label("low"),
        sa.func.max(price).label("high"),
        sa.func.avg(price).label("mean"),
        quartiles.within_group(price).label("quartiles"),
        sa.cast(sa.func.avg(books.c.rating), sa.Double).label("mean_rating"),
        sa.func.json_build_array(*(sa.func.count().filter(books.c.rating == stars) for stars in STARS)).label("stars"),
        sa.func.count().filter(books.c.rating.is_(None)).label("unrated"),
        sa.func.corr(price, sa.cast(books.c.rating, sa.Double)).label("correlation"),
    ]
