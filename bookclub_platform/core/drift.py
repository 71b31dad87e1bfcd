"""The listed books before and after a load -> how far the prices and ratings of the same books moved.

    note_before(connection, "books_toscrape", "travel"); load_category(connection, ...)
    drift = measure_drift(connection, crawl_id)        # all in one transaction
    drift.price_fault(), drift.rating_fault()          # a sentence each, or None

It compares books that were listed before and were seen again by this load. A second load of the same crawl, as when a
step is retried, compares them with what the crawl before saw, and so finds the same; only a change of the currency,
which observations do not have, is not found again. Postgres does all the counting and returns a handful of figures,
however many books there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log
from typing import Any

import sqlalchemy as sa

from bookclub_platform.core.tables import IS_LISTED, book_observations, books

# The median moves only if half of the books do. Among few books a sale can be half; it never doubles or halves all.
FEW_BOOKS = 20
FEW_BOOKS_FACTOR, MANY_BOOKS_FACTOR = 2.0, 1.25
# A price that moves this far is more often a misread decimal point or currency than a bargain.
ONE_BOOK_FACTOR = 5.0
# The usual reading of a population stability index: 0.1 is some shift, 0.25 a large one. The index of two samples of n
# books from one population is about 2/n times a chi-square with 5 degrees of freedom (six classes: no star, one to
# five), whose 99.9 % quantile is 20.5: with few books, only an index above that bound counts.
LARGE_SHIFT, CHI_SQUARE_999 = 0.25, 20.5
MOST_RATINGS_LOST = 0.5
SHOWN = 5
_CLASSES = 6

_before = sa.table(
    "drift_before",
    *(sa.column(name, books.c[name].type) for name in ["id", "price", "currency", "rating", "last_seen_at"]),
    schema="pg_temp",
)


@dataclass(frozen=True, slots=True)
class Drift:
    """Movement of the same books between two loads.

    Attributes:
        books: how many were compared.
        currency_changed: how many of them now have another currency.
        price_ratio: median of new price / old price, over those in the same currency above 0; 1.0 without any.
        jumps: the largest moves among prices that moved by ONE_BOOK_FACTOR or more: address -> "12.50 -> 125.00".
        jumped: the number of all such prices.
        stars_before, stars_now: books by number of stars, 0 for none shown.
        ratings_lost: how many had stars and have none now.
    """

    books: int = 0
    currency_changed: int = 0
    price_ratio: float = 1.0
    jumped: int = 0
    jumps: Mapping[str, str] = field(default_factory=dict)
    stars_before: tuple[int, ...] = (0,) * _CLASSES
    stars_now: tuple[int, ...] = (0,) * _CLASSES
    ratings_lost: int = 0

    @property
    def stability_index(self) -> float:
        """Population stability index of the stars; half a book is added to each class so that none is empty."""
        whole = self.books + _CLASSES / 2
        shares = (
            ((a + 0.5) / whole, (b + 0.5) / whole) for a, b in zip(self.stars_before, self.stars_now, strict=True)
        )
        return sum((now - before) * log(now / before) for before, now in shares)

    def price_fault(self) -> str | None:
        """What is unusual about the prices; None if nothing is."""
        if self.currency_changed > self.books / 2:
            return f"{self.currency_changed} of {self.books} books have another currency than before"
        most = FEW_BOOKS_FACTOR if self.books < FEW_BOOKS else MANY_BOOKS_FACTOR
        if not 1 / most < self.price_ratio < most:
            return f"the median book costs {self.price_ratio:.2f} times what it did ({self.books} books compared)"
        if self.jumped:
            return f"{self.jumped} of {self.books} prices moved by a factor of {ONE_BOOK_FACTOR:.0f} or more"
        return None

    def rating_fault(self) -> str | None:
        """What is unusual about the stars; None if nothing is."""
        had = self.books - self.stars_before[0]
        if self.ratings_lost > MOST_RATINGS_LOST * had:
            return f"{self.ratings_lost} of {had} books lost their stars"
        most = max(LARGE_SHIFT, 2 * CHI_SQUARE_999 / self.books) if self.books else LARGE_SHIFT
        if self.stability_index > most:
            return f"stability index {self.stability_index:.2f} over {self.books} books, at most {most:.2f} is usual"
        return None


def note_before(connection: sa.Connection, source: str, category: str | None) -> int:
    """Save the state of the listed books of a category (None: of the source) for `measure_drift` -> how many."""
    connection.execute(sa.text("DROP TABLE IF EXISTS pg_temp.drift_before"))
    is_inside = sa.true() if category is None else books.c.category == category
    rows = sa.select(*(books.c[name] for name in _before.c.keys())).where(  # noqa: SIM118
        books.c.source == source, is_inside, IS_LISTED
    )
    return connection.execute(sa.CreateTableAs(rows, "drift_before", temporary=True)).rowcount


def measure_drift(connection: sa.Connection, crawl_id: str) -> Drift:
    """How far the books of `note_before` have moved since, by the load of this crawl; only those that were seen again
    count."""
    connection.execute(_as_before_crawl(crawl_id))
    same = _before.join(books, sa.and_(books.c.id == _before.c.id, books.c.last_seen_at > _before.c.last_seen_at))
    is_comparable = sa.and_(books.c.currency == _before.c.currency, books.c.price > 0, _before.c.price > 0)
    move = sa.func.ln(sa.func.nullif(books.c.price, 0) / sa.func.nullif(_before.c.price, 0))
    has_jumped = sa.and_(is_comparable, sa.func.abs(move) >= log(ONE_BOOK_FACTOR))
    stars = [
        sa.func.count().filter(sa.func.coalesce(rating, 0) == number)
        for rating in (_before.c.rating, books.c.rating)
        for number in range(_CLASSES)
    ]
    figures: Any = connection.execute(
        sa.select(
            sa.func.count(),
            sa.func.count().filter(books.c.currency != _before.c.currency),
            sa.func.percentile_cont(0.5).within_group(move).filter(is_comparable),
            sa.func.count().filter(has_jumped),
            sa.func.count().filter(sa.and_(_before.c.rating.is_not(None), books.c.rating.is_(None))),
            *stars,
        ).select_from(same)
    ).one()
    compared, currency_changed, median, jumped, lost, *counts = figures
    furthest = (
        sa.select(books.c.url, _before.c.price, books.c.price)
        .select_from(same)
        .where(has_jumped)
        .order_by(sa.func.abs(move).desc(), books.c.id)
        .limit(SHOWN)
    )
    return Drift(
        books=compared,
        currency_changed=currency_changed,
        price_ratio=1.0 if median is None else exp(median),
        jumped=jumped,
        jumps={url: f"{old} -> {new}" for url, old, new in connection.execute(furthest)} if jumped else {},
        stars_before=tuple(counts[:_CLASSES]),
        stars_now=tuple(counts[_CLASSES:]),
        ratings_lost=lost,
    )


def _as_before_crawl(crawl_id: str) -> sa.Update:
    """Give the books that had this crawl's sighting before the load already what another crawl had seen before it."""
    this, other = book_observations.alias("this"), book_observations.alias("other")
    seen = ["price", "rating", "seen_at"]
    last = (
        sa.select(*(other.c[name] for name in seen))
        .where(other.c.book_id == this.c.book_id, other.c.crawl_id != crawl_id)
        .order_by(other.c.seen_at.desc())
        .limit(1)
        .lateral("last")
    )
    return (
        sa.update(_before)
        .values(price=last.c.price, rating=last.c.rating, last_seen_at=last.c.seen_at)
        .where(
            books.c.id == _before.c.id,
            books.c.last_seen_at == _before.c.last_seen_at,
            this.c.book_id == _before.c.id,
            this.c.crawl_id == crawl_id,
            last.c.seen_at < this.c.seen_at,
        )
    )
