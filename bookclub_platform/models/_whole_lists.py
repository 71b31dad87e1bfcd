"""Vectors and embeddings of some thousand books -> the nearest of each, bit for bit as a search finds them.

    lists = whole_lists(index, works, embedding, weight)        lists.ids, lists.scores: (n, 100) int32, float64

All pairs are compared in single precision, many at a time; those that could be among the nearest are then scored the
way a search scores them. The lists contain all editions of a work: only the request knows which may be recommended.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._index import InvertedIndex
from bookclub_platform.models._lists import Lists

UP_TO = 20_000  # all pairs of this many books take some seconds; the time grows with the square
LENGTH = 100
_AT_ONCE = 8_000_000  # pairs
_UNSURE = 1e-5  # more than the error of single precision


def senses_of(
    embedding: NDArray[np.float32], weight: float, asked: NDArray[np.float32], others: NDArray[np.integer] | slice
) -> NDArray[np.floating]:
    """What the embedding adds to the scores of `others` with the book whose embedding is `asked`."""
    # Not @, whose rounding of a row depends on the other rows: a longer list would not begin with the shorter one.
    cosines = np.einsum("ij,j->i", embedding[others], asked)
    return np.asarray(weight * np.maximum(cosines, 0))


def whole_lists(
    index: InvertedIndex,
    works: NDArray[np.int32],
    embedding: NDArray[np.float32] | None,
    weight: float,
    length: int = LENGTH,
) -> Lists:
    """The `length` nearest of each book, fewer if fewer share anything; ties go to the first place."""
    from scipy.sparse import csr_matrix

    n = len(works)
    k = min(length, n)
    data, columns, bounds = index.by_book.data, index.by_book.indices, index.by_book.indptr
    vectors = csr_matrix((data, columns, bounds), shape=(n, len(index.by_column.indptr) - 1))
    lists = Lists(np.full((n, k), -1, dtype=np.int32), np.zeros((n, k)))
    step = max(1, _AT_ONCE // max(1, n))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        near = (vectors[rows] @ vectors.T).toarray()
        if embedding is not None:
            near = (1 - weight) * near + weight * np.maximum(embedding[rows] @ embedding.T, 0)
        near[works[rows, None] == works] = -1
        least = np.partition(near, n - k, axis=1)[:, n - k] - _UNSURE
        for book, (row, bound) in enumerate(zip(near, least, strict=True), start):
            candidates = np.flatnonzero((row >= bound) & (row >= 0))
            scores = index.cosines_of(book, candidates)
            if embedding is not None:
                scores = (1 - weight) * scores + senses_of(embedding, weight, embedding[book], candidates)
            best = np.argsort(-scores, kind="stable")[: min(k, np.count_nonzero(scores))]
            lists.ids[book, : len(best)], lists.scores[book, : len(best)] = candidates[best], scores[best]
    return lists
