"""The listed books in memory -> the counts of /stats and /categories, as Postgres would return them (core/stats.py).

    shelves = shelves_of(stock)                 which books share source, category, its name and currency
    rows = ...                                  of select_shelf_rows(shelves.ids): the values that they share
    summary(stock, shelves, rows), category_tallies(...), category_counts(...)

For a million books Postgres counts for seconds, this for tenths of a second. It is meant for threads: NumPy holds the
GIL for no more than a few milliseconds at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.browse import PRICE_BANDS
from bookclub_platform.core.stats import QUARTILES, STARS, CategoryCount, CategoryTally, Summary, Tally, commonest
from bookclub_platform.core.stock import Stock

_Rows = Sequence[sa.Row[Any]]
_PRICE_BITS = 34  # a price has ten digits
_HALF = _PRICE_BITS // 2


class Shelves(NamedTuple):
    """Attributes:
    of: (n,) the place of each book's shelf.
    ids: (m,) the id of one book of each shelf.
    """

    of: NDArray[np.int32]
    ids: list[int]


def shelves_of(stock: Stock) -> Shelves:
    prints = np.unique(stock.shelf)
    of = prints.searchsorted(stock.shelf).astype(np.int32)
    ids = np.zeros(len(prints), dtype=np.int64)
    ids[of] = stock.ids
    return Shelves(of, ids.tolist())


def summary(stock: Stock, shelves: Shelves, rows: _Rows) -> Summary:
    assert stock.whole is not None
    of = _by_row(shelves, rows)
    currencies = _currencies(of, rows)
    is_priced = _is_in(commonest(currencies), rows)[of]
    (tally,) = _tallies(stock, np.zeros(len(of), dtype=np.int32), 1, is_priced)
    bands = np.bincount(np.array(PRICE_BANDS, dtype=np.float64).searchsorted(stock.price[is_priced], side="right"))
    return Summary(
        currencies,
        tally,
        [(band, books) for band, books in enumerate(bands.tolist()) if books],
        stock.whole.delisted,
        len({row.category for row in rows}),
        [source for _, source in sorted({(row.source_place, row.source) for row in rows})],
        stock.whole.first_seen_at,
        stock.whole.updated_at,
    )


def category_tallies(stock: Stock, shelves: Shelves, rows: _Rows) -> list[CategoryTally]:
    """Sorted by name (the first, if a category has several), then by slug."""
    of = _by_row(shelves, rows)
    currency = commonest(_currencies(of, rows))
    names = {row.category: row.category_name for row in reversed(rows)}
    indices = {category: at for at, category in enumerate(dict.fromkeys(row.category for row in rows))}
    groups = np.array([indices[row.category] for row in rows], dtype=np.int32)[of]
    tallies = _tallies(stock, groups, len(indices), _is_in(currency, rows)[of])
    return [
        CategoryTally(category, names[category], currency, tally)
        for category, tally in zip(indices, tallies, strict=True)
    ]


def category_counts(stock: Stock, shelves: Shelves, rows: _Rows) -> list[CategoryCount]:
    of = _by_row(shelves, rows)
    counts: dict[tuple[str, str], list[int]] = {}
    books, in_stock = (np.bincount(on, minlength=len(rows)).tolist() for on in (of, of[stock.in_stock]))
    for row, *found in zip(rows, books, in_stock, strict=True):
        known = counts.setdefault((row.category, row.category_name), [0, 0])
        known[:] = (before + more for before, more in zip(known, found, strict=True))
    return [CategoryCount(*names, *found) for names, found in counts.items()]


def _by_row(shelves: Shelves, rows: _Rows) -> NDArray[np.int32]:
    """(n,) the row in `rows` of each book's shelf."""
    at = {row.id: place for place, row in enumerate(rows)}
    by_row: NDArray[np.int32] = np.array([at[book_id] for book_id in shelves.ids], dtype=np.int32)[shelves.of]
    return by_row


def _currencies(of: NDArray[np.int32], rows: _Rows) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for row, books in zip(rows, np.bincount(of, minlength=len(rows)).tolist(), strict=True):
        counts[row.currency] = counts.get(row.currency, 0) + books
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def _is_in(currency: str, rows: _Rows) -> NDArray[np.bool_]:
    """(m,) whether each row has that currency."""
    return np.array([row.currency == currency for row in rows], dtype=np.bool_)


def _tallies(stock: Stock, groups: NDArray[np.int32], count: int, is_priced: NDArray[np.bool_]) -> list[Tally]:
    """One tally for each of `count` groups. `groups`: (n,) the group of each book; `is_priced`: whose price counts."""
    cells = len(STARS) + 1
    cell = groups * cells + stock.rating
    cents = np.rint(stock.price * 100).astype(np.int64)
    books = np.bincount(groups, minlength=count)
    in_stock = np.bincount(groups[stock.in_stock], minlength=count)
    copies = _sums(groups, stock.copies, count)
    stars = np.bincount(cell, minlength=count * cells).reshape(count, cells)
    if not is_priced.all():
        groups, cell, cents = groups[is_priced], cell[is_priced], cents[is_priced]
    pairs = _pairs(cell, cents, count)
    prices = _ascending(groups, cents)
    ends = np.append(0, np.bincount(groups, minlength=count).cumsum())
    return [
        Tally(
            int(books[at]),
            int(in_stock[at]),
            int(copies[at]),
            *_of_prices(prices[ends[at] : ends[at + 1]]),
            stars[at, 1:].tolist(),
            int(stars[at, 0]),
            pairs[at],
        )
        for at in range(count)
    ]


def _ascending(groups: NDArray[np.int32], cents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The prices of the first group, then those of the next; in place, because a copy takes eight bytes per book."""
    keys = groups.astype(np.int64)
    keys <<= _PRICE_BITS
    keys |= cents
    keys.sort()
    keys &= (1 << _PRICE_BITS) - 1
    return keys


def _of_prices(prices: NDArray[np.int64]) -> tuple[int, int | None, int | None, int, list[float] | None]:
    """Number, lowest, highest, sum and quartiles of ascending prices."""
    n = len(prices)
    if not n:
        return 0, None, None, 0, None
    return n, int(prices[0]), int(prices[-1]), int(prices.sum()), [_quantile(prices, share) for share in QUARTILES]


def _quantile(prices: NDArray[np.int64], share: float) -> float:
    """As percentile_cont: interpolates between two prices. Quarters of whole numbers are exact in floats."""
    before, rest = divmod(share * (len(prices) - 1), 1)
    low, high = (int(prices[at]) for at in (int(before), int(before) + (rest > 0)))
    return low + rest * (high - low)


def _pairs(cell: NDArray[np.int32], cents: NDArray[np.int64], count: int) -> list[list[int]]:
    """Tally.pairs of each group. Sums of squared prices exceed 64 bits; sums of the squares of their halves do not."""
    cells = len(STARS) + 1

    def of_stars(values: NDArray[np.int64]) -> list[list[int]]:
        sums: list[list[int]] = _sums(cell, values, count * cells).reshape(count, cells)[:, 1:].tolist()
        return sums

    n = np.bincount(cell, minlength=count * cells).reshape(count, cells)[:, 1:].tolist()
    x = of_stars(cents)
    high, low = cents >> _HALF, cents & (1 << _HALF) - 1
    hh, hl, ll = of_stars(high * high), of_stars(high * low), of_stars(low * low)
    squares = [
        sum((hh << 2 * _HALF) + (hl << _HALF + 1) + ll for hh, hl, ll in zip(*halves, strict=True))
        for halves in zip(hh, hl, ll, strict=True)
    ]
    return [
        [
            sum(n),
            sum(x),
            sum(books * stars for books, stars in zip(n, STARS, strict=True)),
            xx,
            sum(total * stars for total, stars in zip(x, STARS, strict=True)),
            sum(books * stars**2 for books, stars in zip(n, STARS, strict=True)),
        ]
        for n, x, xx in zip(n, x, squares, strict=True)
    ]


def _sums(groups: NDArray[np.int32], values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """(count,) exact sums, unlike bincount with weights."""
    sums = np.zeros(count, dtype=np.int64)
    np.add.at(sums, groups, values)
    return sums
