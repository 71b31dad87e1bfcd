"""A fitted model -> the place of each book on a two-dimensional map, where books that it finds similar are close.

    map = places(model, most=2_000)         # of a larger catalogue, an evenly spaced part
    map.book_ids, map.xy                    # (k,) int64, (k, 2) float32 in 0..1

Similarity is that of the scores: words, categories and the embedding, each with its weight. A truncated SVD reduces
them to 50 dimensions, t-SNE those to two. Distances between distant clusters mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models.tfidf import Tfidf

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MOST = 2_000  # 4 s of one core
DIMENSIONS, PERPLEXITY, STEPS = 50, 30, 500
FEWEST = 8  # books; t-SNE needs enough neighbours to weigh
LEAST_SPREAD = 1e-4  # in any dimension; of equal vectors t-SNE makes NaN, and then crashes the process


class Places(NamedTuple):
    """`xy` is in 0..1, from the left and from the bottom; the same model gives the same map."""

    book_ids: NDArray[np.int64]
    xy: NDArray[np.float32]


def places(model: Tfidf, most: int = MOST) -> Places:
    """The map of `model`; empty if it has fewer than 8 books, if no two of them share a word, or if all are alike."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    books = len(model.book_ids)
    chosen = np.linspace(0, books - 1, min(most, books), dtype=int)
    vectors = _vectors(model, chosen)
    dimensions = min(DIMENSIONS, *(side - 1 for side in vectors.shape))
    if len(chosen) < FEWEST or dimensions < 2 or not vectors.nnz:
        return _nowhere(model)
    with threadpool_limits(1):  # threads sum in a different order each time, and t-SNE would turn that into another map
        with np.errstate(divide="ignore", invalid="ignore"):  # its share of the variance, which may be 0, is not used
            reduced = TruncatedSVD(dimensions, random_state=0).fit_transform(vectors)
        dense = normalize(reduced).astype(np.float32)
        if not np.ptp(dense, axis=0).max() > LEAST_SPREAD:
            return _nowhere(model)
        perplexity = min(PERPLEXITY, (len(chosen) - 1) / 3)
        flat = TSNE(init="pca", random_state=0, perplexity=perplexity, max_iter=STEPS).fit_transform(dense)
    span = np.ptp(flat, axis=0)
    return Places(model.book_ids[chosen], (flat - flat.min(axis=0)) / np.where(span > 0, span, 1))


def _nowhere(model: Tfidf) -> Places:
    return Places(model.book_ids[:0], np.empty((0, 2), np.float32))


def _vectors(model: Tfidf, chosen: NDArray[np.integer]) -> csr_matrix:
    """(k, m): the dot product of two rows is the score of both books, but the embedding's part may be below 0."""
    from scipy.sparse import csr_matrix, hstack

    at, columns, values = model.index_.by_book.rows(chosen)
    words = csr_matrix((values, (at, columns)), shape=(len(chosen), len(model.vocabulary_)))
    if model.embedding_ is None:
        return words
    weight = model.embedding_weight
    return hstack([np.sqrt(1 - weight) * words, csr_matrix(np.sqrt(weight) * model.embedding_[chosen])], format="csr")
