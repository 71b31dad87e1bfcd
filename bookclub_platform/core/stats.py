"""Table `books` -> the figures of the catalogue, each for one API response: read-only statements over listed books.

    rows = connection.execute(select_tally("GBP")); Tally(*rows.one()).mean

Prices are in one currency (select_currencies of core/explore.py returns the most frequent first): a mean of pounds and
euros would be meaningless. Sums are in whole hundredths, so that they do not depend on the order of addition, whether
Postgres adds them or serving/counting/stock_counts.py, which computes the same in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from bookclub_platform.core.browse import price_band
from bookclub_platform.core.tables import IS_LISTED, books

QUARTILES = (0.25, 0.5, 0.75)
STARS = (1, 2, 3, 4, 5)
NO_CURRENCY = "XXX"  # ISO 4217's code for no currency: there is no book yet


class Tally(NamedTuple):
    """The sums and counts behind the figures of some books.

    Attributes:
        copies: the sum of the shops' stock counts.
        priced: the number of books with a price in the currency.
        low: the lowest of those prices in hundredths; so are `high`, the sum `total` and the three `quartiles`; null if
            there are none.
        stars: the numbers of books with 1 to 5 stars.
        pairs: for the priced books with stars: their number, and the sums of x, y, xx, xy and yy; x are hundredths, y
            stars.
    """

    books: int
    in_stock: int
    copies: int
    priced: int
    low: int | None
    high: int | None
    total: int
    quartiles: list[float] | None
    stars: list[int]
    unrated: int
    pairs: list[int]

    @property
    def mean(self) -> float | None:
        """The mean price, in units of the currency."""
        return self.total / (100 * self.priced) if self.priced else None

    @property
    def mean_rating(self) -> float | None:
        rated = sum(self.stars)
        return sum(stars * books for stars, books in zip(STARS, self.stars, strict=True)) / rated if rated else None

    @property
    def correlation(self) -> float | None:
        """Pearson's correlation of price and stars; None if either does not vary."""
        n, x, y, xx, xy, yy = self.pairs
        square = (n * xx - x * x) * (n * yy - y * y)
        return max(-1.0, min(1.0, (n * xy - x * y) / math.sqrt(square))) if square else None


class Summary(NamedTuple):
    """All listed books in figures, with prices in their most frequent currency.

    Attributes:
        currencies: (currency, books), the most frequent first.
        bands: (band of core/browse.py, books), from the cheapest up.
        first_seen_at: over all books ever seen, like `updated_at`.
    """

    currencies: list[tuple[str, int]]
    tally: Tally
    bands: list[tuple[int, int]]
    delisted: int
    categories: int
    sources: list[str]
    first_seen_at: datetime | None
    updated_at: datetime | None

    @property
    def currency(self) -> str:
        return commonest(self.currencies)


class CategoryTally(NamedTuple):
    """A category in figures, with prices in the most frequent currency of all books."""

    category: str
    category_name: str
    currency: str
    tally: Tally


class CategoryCount(NamedTuple):
    """A row of select_categories."""

    category: str
    category_name: str
    books: int
    in_stock: int


def commonest(currencies: Sequence[tuple[str, int]]) -> str:
    """The currency of the first (currency, books); NO_CURRENCY if there is none."""
    return currencies[0][0] if currencies else NO_CURRENCY


def select_counts() -> sa.Select[Any]:
    """One row: delisted, categories, sources (their names, or null), first_seen_at, updated_at."""
    counts: list[Any] = [
        sa.func.count().filter(sa.not_(IS_LISTED)).label("delisted"),
        sa.func.count(books.c.category.distinct()).filter(IS_LISTED).label("categories"),
        sa.func.array_agg(books.c.source.distinct()).filter(IS_LISTED).label("sources"),
        sa.func.min(books.c.first_seen_at).label("first_seen_at"),
        sa.func.max(books.c.updated_at).label("updated_at"),
    ]
    return sa.select(*counts)


def select_tally(currency: str) -> sa.Select[Any]:
    """One row over all listed books: a Tally."""
    return sa.select(*_tally(_terms(currency)))


def select_tally_by_category(currency: str) -> sa.Select[Any]:
    """(category, category_name, then the fields of a Tally) of each category, by name."""
    terms = _terms(currency)
    name = sa.func.min(terms.c.category_name).label("category_name")
    chosen = sa.select(terms.c.category, name, *_tally(terms))
    return chosen.group_by(terms.c.category).order_by("category_name", terms.c.category)


def select_price_bands(currency: str) -> sa.Select[Any]:
    """(band, books) of the bands of core/browse.py that have a book, from the cheapest up."""
    columns: list[Any] = [price_band().label("band"), sa.func.count().label("books")]
    return sa.select(*columns).where(IS_LISTED, books.c.currency == currency).group_by("band").order_by("band")


def _terms(currency: str) -> sa.Subquery:
    """For each listed book, what a Tally adds up; `price` in hundredths, null in another currency."""
    price = sa.case((books.c.currency == currency, sa.cast(books.c.price * 100, sa.BigInteger))).label("price")
    names = ["category", "category_name", "in_stock", "stock", "rating"]
    # OFFSET keeps Postgres from inlining the conversion into each of a dozen sums, which takes twice as long.
    return sa.select(*(books.c[name] for name in names), price).where(IS_LISTED).offset(0).subquery()


def _tally(terms: sa.Subquery) -> list[sa.ColumnElement[Any]]:
    """The fields of a Tally."""
    price, rating = terms.c.price, terms.c.rating
    x = sa.case((rating.is_not(None), price))
    y = sa.case((price.is_not(None), rating))
    quartiles = sa.func.percentile_cont(sa.literal(list(QUARTILES), sa.ARRAY(sa.Double)), type_=sa.ARRAY(sa.Double))
    # bigint holds all the sums except that of squared prices: a price has at most ten digits.
    sums = [x, y, sa.cast(x, sa.Numeric) * x, x * y, y * y]
    return [
        sa.func.count().label("books"),
        sa.func.count().filter(terms.c.in_stock).label("in_stock"),
        sa.func.coalesce(sa.func.sum(terms.c.stock), 0).label("copies"),
        sa.func.count(price).label("priced"),
        sa.func.min(price).label("low"),
        sa.func.max(price).label("high"),
        sa.cast(sa.func.coalesce(sa.func.sum(price), 0), sa.BigInteger).label("total"),
        quartiles.within_group(sa.cast(price, sa.Double)).label("quartiles"),
        sa.func.json_build_array(*(sa.func.count().filter(rating == stars) for stars in STARS)).label("stars"),
        sa.func.count().filter(rating.is_(None)).label("unrated"),
        sa.func.json_build_array(sa.func.count(x), *(sa.func.coalesce(sa.func.sum(term), 0) for term in sums)).label(
            "pairs"
        ),
    ]
