"""Unit vectors of books, by row and by column -> cosines of one book with all -> what two books share. Only NumPy.

    index = InvertedIndex(by_book, by_column)
    index.cosines(7)               ->  (n,) float64
    index.shared(7, array([3, 9]), 5)  ->  the columns that 7 shares with 3 and with 9, and what each adds to the cosine
    index.among(7, is_allowed, works, 10)  ->  the ten nearest of the allowed books, and their cosines

`cosines` and `shared` are exact: they visit all the books that share a column with the given one, and no others.
`among` limits its cost instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._sums import SUMS

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# These limit the cost of a filtered list to some milliseconds of NumPy. If a filter leaves this many books or fewer,
# each is scored.
NARROW = 3_000
# Otherwise postings are read, in STEPS, until ALLOWED_POSTINGS of them belong to allowed books. Of the books that lead
# by these, the FIRST are scored, and then, up to SCORED, all that may still be as near. In a catalogue of a million
# made-up books with a filter that passes 2 in 100, 60,000 postings find 0.83 of the exact lists, 200,000 all.
STEPS = (62_500, 125_000, 187_500, 250_000)
ALLOWED_POSTINGS = 20_000
FIRST, SCORED = 100, 1_000
FEW = 3_000  # entries: up to this many, searching for each is faster than building a table first


class Compressed(NamedTuple):
    """A sparse matrix: row i holds `data[indptr[i]:indptr[i + 1]]` in the columns `indices[...]` of the same range."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: csr_matrix) -> Self:
        return cls(matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32))

    def rows(self, chosen: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """The entries of the `chosen` rows in sequence: (place in `chosen`, column, value) of each."""
        starts, ends = self.indptr[chosen], self.indptr[chosen + 1]
        lengths = ends - starts
        owners = np.repeat(np.arange(len(chosen)), lengths)
        offsets = np.cumsum(lengths) - lengths
        entries = np.arange(len(owners)) + np.repeat(starts - offsets, lengths)
        return owners, self.indices[entries], self.data[entries]

    def fault(self, n_rows: int, n_columns: int) -> str | None:
        """Why these arrays are not a matrix of this shape, or None: an out-of-bounds index must not pass."""
        if len(self.indptr) != n_rows + 1:
            return f"{len(self.indptr)} row bounds for {n_rows} rows"
        if self.indptr[0] != 0 or self.indptr[-1] != len(self.indices) or np.any(np.diff(self.indptr) < 0):
            return "row bounds that do not ascend from 0 to the number of entries"
        if len(self.indices) != len(self.data):
            return f"{len(self.indices)} columns for {len(self.data)} values"
        if len(self.indices) and not (self.indices.min() >= 0 and self.indices.max() < n_columns):
            return f"a column outside 0..{n_columns - 1}"
        if not np.all((self.data >= 0) & (self.data <= 1.001)):
            return "values that are not those of a unit vector"
        return None


class Shared(NamedTuple):
    """What each of k books shares with one. For the i-th book: the columns `columns[bounds[i]:bounds[i + 1]]` and what
    each adds to the cosine; only the largest, in descending order; ties go to the lower column.

    Attributes:
        bounds: (k + 1,).
        counts: (k,) how many columns are shared in all.
        totals: (k,) what all of them add together.
    """

    columns: NDArray[np.int32]
    products: NDArray[np.float32]
    bounds: NDArray[np.int64]
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]


class Vector(NamedTuple):
    """A vector to compare the books with, not necessarily a book's own: ascending columns, and weights of 0 or more."""

    columns: NDArray[np.int32]
    weights: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InvertedIndex:
    """The same matrix (n books, m columns) twice: `by_book` has a row per book, with ascending columns, `by_column` a
    row per column."""

    by_book: Compressed
    by_column: Compressed

    def vector(self, book: int) -> Vector:
        """The vector of the book at place `book`."""
        entries = slice(self.by_book.indptr[book], self.by_book.indptr[book + 1])
        return Vector(self.by_book.indices[entries], self.by_book.data[entries])

    def cosines(self, book: int | Vector) -> NDArray[np.float64]:
        """(n,): the cosine of the book at place `book`, or of any vector, with every book, including itself."""
        columns, weights = self._asked(book)
        owners, books, values = self.by_column.rows(columns)
        n_books = len(self.by_book.indptr) - 1
        return np.asarray(np.bincount(books, weights=values * weights[owners], minlength=n_books), dtype=np.float64)

    def cosines_of(self, book: int | Vector, others: NDArray[np.integer]) -> NDArray[np.float64]:
        """(len(others),): bit for bit what `cosines` returns at these places; cheaper if they are few."""
        owners, _, products = self._products(book, others)
        sums = np.bincount(owners, weights=products, minlength=len(others))
        return np.asarray(sums, dtype=np.float64)  # without any book they would be integers

    def shared(self, book: int | Vector, others: NDArray[np.integer], limit: int) -> Shared:
        """What each of `others` (places) shares with `book`: the `limit` largest contributions of each."""
        owners, columns, products = self._products(book, others)
        kept = np.flatnonzero(products)
        owners, columns, products = owners[kept], columns[kept], products[kept]
        counts = np.bincount(owners, minlength=len(others))
        totals = np.asarray(np.bincount(owners, weights=products, minlength=len(others)), dtype=np.float64)
        order = np.lexsort((columns, -products, owners))
        ranks = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        largest = order[ranks < limit]
        bounds = np.concatenate([[0], np.cumsum(np.minimum(counts, limit))])
        return Shared(columns[largest], products[largest], bounds, counts, totals)

    def among(
        self, book: int | Vector, is_allowed: NDArray[np.bool_], works: NDArray[np.int32], limit: int
    ) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """The `limit` nearest of the books that `is_allowed` (n,) marks, one per work and none of the book's own work,
        and their cosines.

        Exact if the filter leaves `NARROW` books or fewer. Of more, only those that lead by the rarest terms are
        scored, so that the cost stays bounded for any number of books; some of the exact list may be missing.
        """
        if np.count_nonzero(is_allowed) <= NARROW or not len(self._asked(book).columns):
            places: NDArray[np.integer] = np.flatnonzero(is_allowed)
            scores = self.cosines_of(book, places)
        else:
            places, scores = self._likeliest(book, is_allowed, limit)
        if not isinstance(book, Vector):
            scores[works[places] == works[book]] = 0
        best = nearest(scores, works[places], limit)
        return places[best], scores[best]

    def _likeliest(
        self, book: int | Vector, is_allowed: NDArray[np.bool_], limit: int
    ) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """Places, ascending, of the allowed books that may be the `limit` nearest, and their cosines."""
        books, sums = self._leading(self._asked(book), is_allowed)
        leading = np.argpartition(-sums, SCORED)[:SCORED] if len(books) > SCORED else np.arange(len(books))
        leading = leading[np.lexsort((books[leading], -sums[leading]))]
        books, sums = books[leading], sums[leading]
        first = max(FIRST, 4 * limit)
        scores = self.cosines_of(book, books[:first])
        if first < len(books):
            # The other terms are the common ones: hardly any other book gains more from them than the best of these.
            wanted = np.partition(scores, -2 * limit)[-2 * limit] - np.max(scores - sums[:first])
            last = max(first, int(np.searchsorted(-sums, -wanted, side="right")))
            scores = np.concatenate([scores, self.cosines_of(book, books[first:last])])
        order = np.argsort(books[: len(scores)])
        return books[order], scores[order]

    def _leading(
        self, asked: Vector, is_allowed: NDArray[np.bool_]
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
        """The allowed books that have one of the rarest terms, and their cosines over these terms only."""
        sizes = self.by_column.indptr[asked.columns + 1] - self.by_column.indptr[asked.columns]
        rarest = np.argsort(sizes, kind="stable")
        ends = np.searchsorted(np.cumsum(sizes[rarest]), STEPS, side="right").tolist()
        books: list[NDArray[np.int32]] = []
        products: list[NDArray[np.float32]] = []
        for start, end in pairwise(sorted({0, max(1, ends[0]), *ends[1:]})):
            some = rarest[start:end]
            found, values = self._postings(Vector(asked.columns[some], asked.weights[some]), is_allowed)
            books.append(found)
            products.append(values)
            if sum(map(len, books)) >= ALLOWED_POSTINGS:
                break
        return SUMS.of(np.concatenate(books), np.concatenate(products), len(is_allowed))

    def _postings(self, asked: Vector, is_allowed: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The allowed books in these columns, once per column that a book has, and what that adds to its cosine."""
        starts, ends = self.by_column.indptr[asked.columns], self.by_column.indptr[asked.columns + 1]
        pieces = [self.by_column.indices[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        # take, not [], which takes twice as long.
        kept = np.flatnonzero(np.concatenate([is_allowed.take(piece) for piece in pieces]))
        counts, shifts = _within(kept, starts, ends)
        entries = kept + np.repeat(shifts, counts)
        products = self.by_column.data[entries] * np.repeat(asked.weights, counts)
        return self.by_column.indices[entries], products

    def _products(
        self, book: int | Vector, others: NDArray[np.integer]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """For each entry of `others` in a column of `book`: place in `others`, column, and product of both values."""
        asked = self._asked(book)
        if not len(asked.columns):
            others = others[:0]
        starts, ends = self.by_book.indptr[others], self.by_book.indptr[others + 1]
        lengths = ends - starts
        entries = np.arange(lengths.sum()) + np.repeat(ends - np.cumsum(lengths), lengths)
        columns = self.by_book.indices[entries]
        at = _sought(asked.columns, columns)
        kept = np.flatnonzero(asked.columns.take(at) == columns)
        owners = np.repeat(np.arange(len(others)), _within(kept, starts, ends)[0])
        return owners, columns[kept], self.by_book.data[entries[kept]] * asked.weights[at[kept]]

    def _asked(self, book: int | Vector) -> Vector:
        return book if isinstance(book, Vector) else self.vector(book)


def _sought(columns: NDArray[np.int32], entries: NDArray[np.int32]) -> NDArray[np.integer]:
    """The position in `columns` (ascending) of each of `entries`; an arbitrary position if it is not there."""
    if len(entries) < FEW:
        return np.asarray(np.minimum(columns.searchsorted(entries), max(len(columns) - 1, 0)))
    ranks = _ranks(columns)
    return np.asarray(ranks[entries & (len(ranks) - 1)])


def _ranks(columns: NDArray[np.int32]) -> NDArray[np.int32]:
    """(2**k,): last k bits of a column -> its position in `columns`; k is large enough that no two share these bits.

    With an entry for every column of a large vocabulary, each lookup would miss the CPU cache.
    """
    slots = 2**16
    places = np.arange(len(columns), dtype=np.int32)
    while True:
        ranks = np.zeros(slots, dtype=np.int32)
        ranks[columns & (slots - 1)] = places
        if np.array_equal(ranks[columns & (slots - 1)], places):
            return ranks
        slots *= 2


def _within(
    kept: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For ranges laid end to end: how many of `kept` (ascending) fall in each, and the shift back to its positions."""
    bounds = np.cumsum(ends - starts)
    return np.diff(np.searchsorted(kept, bounds), prepend=0), ends - bounds


def nearest(scores: NDArray[np.float64], works: NDArray[np.int32], limit: int) -> NDArray[np.int64]:
    """The places of the `limit` highest scores above 0, highest first, one per work; ties go to the first place."""
    sharing = np.flatnonzero(scores)
    wanted = limit
    while True:
        top = sharing
        if wanted < len(sharing):
            top = sharing[scores[sharing] >= np.partition(scores[sharing], -wanted)[-wanted]]
        top = top[np.argsort(-scores[top], kind="stable")]
        _, first = np.unique(works[top], return_index=True)
        if len(first) >= limit or len(top) == len(sharing):
            return top[np.sort(first)[:limit]]
        wanted *= 2
