"""Entries of a sparse matrix, in any order -> the index of unit vectors that a model searches. Needs only NumPy.

unit_index(rows, columns, weights, shape=(n, m), terms=t)    ->  InvertedIndex
merged(older, is_kept, newer, order)                         ->  the kept rows of `older` and all rows of `newer`
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._index import Compressed, InvertedIndex


def unit_index(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    weights: NDArray[np.float64],
    shape: tuple[int, int],
    terms: int,
) -> InvertedIndex:
    """Rows of length 1. First the part of a row in the first `terms` columns is scaled to length 1, then the row."""
    n_rows, n_columns = shape
    is_term = columns < terms
    lengths = _lengths(rows[is_term], weights[is_term], n_rows)
    weights = np.where(is_term, weights / lengths[rows], weights)
    weights = weights / _lengths(rows, weights, n_rows)[rows]
    order = np.argsort(rows * n_columns + columns, kind="stable")
    counts = np.bincount(rows, minlength=n_rows)
    by_book = Compressed(_bounds(counts), columns[order].astype(np.int32), weights[order].astype(np.float32))
    return InvertedIndex(by_book, _transposed(by_book, n_columns))


def merged(
    older: InvertedIndex, is_kept: NDArray[np.bool_], newer: InvertedIndex, order: NDArray[np.int64]
) -> InvertedIndex:
    """The kept rows of `older` followed by those of `newer`, then all of them in `order`."""
    n_columns = len(newer.by_column.indptr) - 1
    _, columns, values = older.by_book.rows(np.flatnonzero(is_kept))
    counts = np.concatenate([np.diff(older.by_book.indptr)[is_kept], np.diff(newer.by_book.indptr)])
    both = Compressed(
        _bounds(counts), np.concatenate([columns, newer.by_book.indices]), np.concatenate([values, newer.by_book.data])
    )
    _, columns, values = both.rows(order)
    by_book = Compressed(_bounds(counts[order]), columns, values)
    return InvertedIndex(by_book, _transposed(by_book, n_columns))


def _lengths(rows: NDArray[np.int64], weights: NDArray[np.float64], n_rows: int) -> NDArray[np.float64]:
    squares = np.bincount(rows, weights * weights, n_rows)
    return np.sqrt(np.where(squares > 0, squares, 1))


def _bounds(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _transposed(matrix: Compressed, n_columns: int) -> Compressed:
    rows = np.repeat(np.arange(len(matrix.indptr) - 1, dtype=np.int32), np.diff(matrix.indptr))
    order = np.argsort(matrix.indices, kind="stable")
    counts = np.bincount(matrix.indices, minlength=n_columns)
    return Compressed(_bounds(counts), rows[order], matrix.data[order])
