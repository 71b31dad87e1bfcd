"""The loops of `_nearest` that NumPy cannot express, compiled by Numba; imported to fit a model, never to serve one.

    scan_all(rows, ...)     scores every book that could be among the nearest: exact
    scan_some(rows, ...)    scores the best few by a bounded number of postings: the cost does not rise with n

Both fill `ids` and `scores` (len(rows), k) with the nearest of each of `rows`, nearest first, -1 and 0 where there is
none. Ties go to the lower id; a list has one book per work and none of the row's own work. A matrix is (indptr,
indices, data). Its columns are sorted by how many books have them, so that a row's rarest term comes first. The
functions release the GIL, so threads run them in parallel.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
Floats = NDArray[np.float32]
Matrix = tuple[Places, Ids, Floats]

_ROUNDING = np.float32(1e-5)  # more than the rounding error of a sum of a few hundred float32 products


@numba.njit(nogil=True, cache=True)
def scan_all(
    rows: Places,
    by_book: Matrix,
    by_column: Matrix,
    works: Ids,
    cut: int,
    rest: Floats,
    by_rest: Ids,
    ids: Ids,
    scores: Floats,
) -> None:
    """Sum the postings of the columns before `cut`. The other columns can add to a cosine at most the product of both
    books' lengths in them, `rest` (n,). Books that could still beat the k-th are scored by all their terms; if they are
    too many, the remaining postings are summed too. `by_rest` (n,): books by descending `rest`.
    """
    indptr, columns, values = by_book
    starts = by_column[0]
    n, k, n_columns = len(indptr) - 1, ids.shape[1], len(starts) - 1
    sums, touched = np.zeros(n, np.float32), np.empty(n + 1, np.int32)
    of_row = np.zeros(n_columns, np.float32)
    heap, heap_books = np.empty(2 * k, np.float32), np.empty(2 * k, np.int32)
    candidates = np.empty(n, np.int32)
    for at in range(len(rows)):
        row = rows[at]
        first, last = indptr[row], indptr[row + 1]
        middle, remaining = first, 0
        for entry in range(first, last):
            of_row[columns[entry]] = values[entry]
            if columns[entry] < cut:
                middle = entry + 1
            else:
                remaining += starts[columns[entry] + 1] - starts[columns[entry]]
        n_touched = _add(by_book, by_column, first, middle, sums, touched, 0)
        found = _best(sums, touched[:n_touched], works, row, heap, heap_books)
        _keep(by_book, of_row, heap_books[:found], works, ids[at], scores[at])
        wanted = scores[at, k - 1] - _ROUNDING
        n_left = _left(sums, touched[:n_touched], rest, by_rest, row, wanted, candidates, remaining // 16)
        if n_left < 0:
            n_touched = _add(by_book, by_column, middle, last, sums, touched, n_touched)
            n_left = _above(sums, touched[:n_touched], wanted, candidates)
        n_left = _others(candidates[:n_left], works, row)
        _keep(by_book, of_row, candidates[:n_left], works, ids[at], scores[at])
        for book in touched[:n_touched]:
            sums[book] = 0
        for entry in range(first, last):
            of_row[columns[entry]] = 0


@numba.njit(nogil=True, cache=True)
def scan_some(
    rows: Places,
    by_book: Matrix,
    by_column: Matrix,
    works: Ids,
    budget: int,
    n_candidates: int,
    ids: Ids,
    scores: Floats,
) -> None:
    """Sum postings, those of the rarest term first, as long as they are at most `budget`; then score the `n_candidates`
    books with the largest sums by all their terms.
    """
    indptr, columns, values = by_book
    starts = by_column[0]
    n = len(indptr) - 1
    sums, touched = np.zeros(n, np.float32), np.empty(n + 1, np.int32)
    of_row = np.zeros(len(starts) - 1, np.float32)
    heap, heap_books = np.empty(n_candidates, np.float32), np.empty(n_candidates, np.int32)
    for at in range(len(rows)):
        row = rows[at]
        first, last = indptr[row], indptr[row + 1]
        end, spent = first, 0
        for entry in range(first, last):
            of_row[columns[entry]] = values[entry]
            spent += starts[columns[entry] + 1] - starts[columns[entry]]
            if spent <= budget or entry == first:
                end = entry + 1
        n_touched = _add(by_book, by_column, first, end, sums, touched, 0)
        found = _best(sums, touched[:n_touched], works, row, heap, heap_books)
        _keep(by_book, of_row, heap_books[:found], works, ids[at], scores[at])
        for book in touched[:n_touched]:
            sums[book] = 0
        for entry in range(first, last):
            of_row[columns[entry]] = 0


@numba.njit(nogil=True, cache=True)
def _add(by_book: Matrix, by_column: Matrix, first: int, end: int, sums: Floats, touched: Ids, n_touched: int) -> int:
    """Add the postings of a row's entries to `sums`; `touched` lists the books whose sum is no longer 0."""
    _, columns, values = by_book
    starts, books, weights = by_column
    for entry in range(first, end):
        column, value = columns[entry], values[entry]
        for posting in range(starts[column], starts[column + 1]):
            book = books[posting]
            touched[n_touched] = book
            n_touched += sums[book] == 0  # no branch: whether a book is new cannot be predicted
            sums[book] += value * weights[posting]
    return n_touched


@numba.njit(nogil=True, cache=True)
def _best(sums: Floats, touched: Ids, works: Ids, row: int, heap: Floats, heap_books: Ids) -> int:
    """Collect the books with the largest sums, as many as fit in the heap, in no order; return how many."""
    found, size, least = 0, len(heap), np.float32(0)
    for book in touched:
        total = sums[book]
        if total > least and works[book] != works[row]:
            if found < size:
                _raise(heap, heap_books, found, total, book)
                found += 1
            else:
                _sink(heap, heap_books, total, book)
            if found == size:
                least = heap[0]
    return found


@numba.njit(nogil=True, cache=True)
def _left(
    sums: Floats, touched: Ids, rest: Floats, by_rest: Ids, row: int, wanted: float, candidates: Ids, most: int
) -> int:
    """Collect the books that could reach a cosine of `wanted`; return how many, or -1 if they are more than `most`."""
    n_left = 0
    for book in touched:
        if sums[book] + rest[row] * rest[book] >= wanted:
            if n_left >= most:
                return -1
            candidates[n_left] = book
            n_left += 1
    for book in by_rest:
        if rest[row] * rest[book] < wanted or rest[row] == 0:
            break
        if sums[book] == 0:
            if n_left >= most:
                return -1
            candidates[n_left] = book
            n_left += 1
    return n_left


@numba.njit(nogil=True, cache=True)
def _above(sums: Floats, touched: Ids, wanted: float, candidates: Ids) -> int:
    n_left = 0
    for book in touched:
        if sums[book] >= wanted:
            candidates[n_left] = book
            n_left += 1
    return n_left


@numba.njit(nogil=True, cache=True)
def _others(candidates: Ids, works: Ids, row: int) -> int:
    """Move the books that are not of the row's work to the front; return how many there are."""
    kept = 0
    for book in candidates:
        if works[book] != works[row]:
            candidates[kept] = book
            kept += 1
    return kept


@numba.njit(nogil=True, cache=True)
def _raise(heap: Floats, books: Ids, place: int, total: float, book: int) -> None:
    """Insert a last entry into a min-heap and sift it up."""
    while place > 0:
        parent = (place - 1) >> 1
        if heap[parent] <= total:
            break
        heap[place], books[place] = heap[parent], books[parent]
        place = parent
    heap[place], books[place] = total, book


@numba.njit(nogil=True, cache=True)
def _sink(heap: Floats, books: Ids, total: float, book: int) -> None:
    """Replace the smallest entry of a min-heap and sift the new one down."""
    place, size = 0, len(heap)
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= total:
            break
        heap[place], books[place] = heap[child], books[child]
        place = child
    heap[place], books[place] = total, book


@numba.njit(nogil=True, cache=True)
def _keep(by_book: Matrix, of_row: Floats, candidates: Ids, works: Ids, ids: Ids, scores: Floats) -> None:
    """Score `candidates` by all their terms, and overwrite `ids` and `scores` with the nearest, one per work."""
    indptr, columns, values = by_book
    ids[:], scores[:] = -1, 0
    for book in candidates:
        total = 0.0
        for entry in range(indptr[book], indptr[book + 1]):
            total += values[entry] * of_row[columns[entry]]
        score = np.float32(total)
        place = _place(ids, scores, score, book)
        if place == len(ids):
            continue
        last = place
        while last < len(ids) - 1 and ids[last] >= 0 and works[ids[last]] != works[book]:
            last += 1
        is_worse = False
        for earlier in ids[:place]:
            is_worse = is_worse or works[earlier] == works[book]
        if not is_worse:
            for at in range(last, place, -1):
                ids[at], scores[at] = ids[at - 1], scores[at - 1]
            ids[place], scores[place] = book, score


@numba.njit(nogil=True, cache=True)
def _place(ids: Ids, scores: Floats, score: np.float32, book: int) -> int:
    """The position of `book` in a list that is sorted nearest first."""
    place = len(ids)
    while place > 0 and (
        ids[place - 1] < 0 or scores[place - 1] < score or (scores[place - 1] == score and ids[place - 1] > book)
    ):
        place -= 1
    return place
