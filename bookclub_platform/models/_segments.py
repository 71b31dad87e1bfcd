"""Embeddings of books -> segments: groups of books that are about like things, named by their strongest terms.

    segments = segments_of(embedding, by_book, terms)       when a model is fitted; needs scikit-learn
    segments.nearest(embedding)                             (n,) int64 and (n,) float32; NumPy alone

k-means over the directions that the catalogue itself teaches (or those of a sentence embedding), so a segment goes
across the shop's own categories. Only centres and names are kept: a book that came since is in the segment whose
centre is nearest to it, as those that were learned are.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._index import Compressed

TERMS = 6
FEWEST, MOST = 2, 40
SEGMENT_ARRAYS: dict[str, type[np.generic]] = {"segments.centres": np.float32, "segments.terms": np.int32}
"""Of two dimensions, both."""


class Segments(NamedTuple):
    """Attributes:
    centres: (k, d) float32, of length 1; the segment of most books is the first.
    terms: (k, TERMS) int32, columns of the vocabulary, the strongest first; -1 where there are no more.
    """

    centres: NDArray[np.float32]
    terms: NDArray[np.int32]

    def nearest(self, embedding: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(n,) each: the segment of each book of `embedding` (n, d), -1 for one without a direction; and its cosine
        with the centre, by which the most typical book of a segment is found."""
        cosines = embedding @ self.centres.T
        segment = cosines.argmax(axis=1)
        segment[~embedding.any(axis=1)] = -1
        return segment, cosines.max(axis=1)

    def fault(self, dimensions: int, columns: int) -> str | None:
        """Why these do not fit an embedding of `dimensions` and a vocabulary of `columns`, or None."""
        k = len(self.centres)
        if self.centres.shape != (k, dimensions) or self.terms.shape != (k, TERMS) or k < FEWEST:
            return f"segments of shapes {self.centres.shape} and {self.terms.shape}"
        # NaN fails the comparison.
        is_unit = np.abs(np.einsum("ij,ij->i", self.centres, self.centres) - 1) <= 0.001
        has_names = (self.terms >= -1).all() and (self.terms < columns).all()
        return None if is_unit.all() and has_names else "segments that are no directions, or of unknown terms"


def segments_of(embedding: NDArray[np.float32], by_book: Compressed, terms: int) -> Segments | None:
    """Segments of the books whose vectors are `by_book`, of which the first `terms` columns are terms; the same books
    give the same segments. None for so few books that each would stand alone."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    placed = np.flatnonzero(embedding.any(axis=1))
    wanted = min(MOST, round((len(placed) / 2) ** 0.5))  # the usual rule of thumb: 22 of 1,000 books
    if wanted < FEWEST or len(np.unique(embedding[placed], axis=0)) < wanted:
        return None
    with threadpool_limits(1):  # threads add up in another order each time
        centres = KMeans(wanted, n_init=4, random_state=0).fit(embedding[placed]).cluster_centers_
    lengths = np.linalg.norm(centres, axis=1, keepdims=True)
    centres = np.divide(centres, lengths, out=np.zeros_like(centres), where=lengths > 0)
    unnamed = Segments(centres.astype(np.float32), np.full((wanted, TERMS), -1, dtype=np.int32))
    books, _ = unnamed.nearest(embedding)
    sizes = np.bincount(books[books >= 0], minlength=wanted)
    order = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    named = Segments(unnamed.centres[order], unnamed.terms[order])
    books, _ = named.nearest(embedding)
    return named._replace(terms=_strongest(by_book, books, len(order), terms)) if len(order) >= FEWEST else None


def _strongest(by_book: Compressed, books: NDArray[np.int64], k: int, terms: int) -> NDArray[np.int32]:
    """(k, TERMS): the terms whose mean weight in a segment is the furthest above that in all books."""
    owners = np.repeat(books, np.diff(by_book.indptr))
    overall = np.bincount(by_book.indices, by_book.data, terms)[:terms] / len(books)
    strongest = np.full((k, TERMS), -1, dtype=np.int32)
    for segment in range(k):
        inside = owners == segment
        mean = np.bincount(by_book.indices[inside], by_book.data[inside], terms)[:terms]
        lead = mean / np.count_nonzero(books == segment) - overall
        best = np.argsort(-lead, kind="stable")[:TERMS]
        best = best[lead[best] > 0]
        strongest[segment, : len(best)] = best
    return strongest
