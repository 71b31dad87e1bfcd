"""Embeddings of books -> segments: groups of books on similar subjects, named by their strongest terms.

    segments = segments_of(embedding, by_book, terms)       when a model is fitted; needs scikit-learn
    segments.nearest(embedding)                             (n,) int64 and (n,) float32; NumPy alone

Segments come from k-means over the directions learned from the catalogue itself (or those of a sentence embedding), so
a segment crosses the shop's own categories. Only centres and names are stored: a book that is added later belongs to
the segment with the nearest centre, as the fitted books do.
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
    centres: (k, d) float32, of length 1; the segment with the most books comes first.
    terms: (k, TERMS) int32, columns of the vocabulary, the strongest first; -1 if there are no more.
    """

    centres: NDArray[np.float32]
    terms: NDArray[np.int32]

    def nearest(self, embedding: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(n,) each: the segment of each book of `embedding` (n, d), -1 for one without a direction; and its cosine
        with the centre, which is highest for the most typical book of a segment."""
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
    """Segments of the books with the vectors `by_book`, whose first `terms` columns are terms; the same books give the
    same segments. None if there are too few books to form groups."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    placed = np.flatnonzero(embedding.any(axis=1))
    wanted = min(MOST, round((len(placed) / 2) ** 0.5))  # the usual rule of thumb: 22 segments for 1,000 books
    if wanted < FEWEST or len(np.unique(embedding[placed], axis=0)) < wanted:
        return None
    with threadpool_limits(1):  # threads sum in a different order each time
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
    """(k, TERMS): the terms whose mean weight in a segment exceeds that in all books by the most."""
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
