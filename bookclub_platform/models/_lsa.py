"""TF-IDF vectors -> the directions along which they differ most (latent semantic analysis) -> coordinates along those.

components = components_of(vectors)         (n, m) scipy CSR -> (d, m) float32
along(index.by_book, components)            (n, d) float32: also for books added later
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._index import Compressed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DIMENSIONS, BOOKS_EACH = 50, 20  # the maximum of dimensions, and the minimum of books for each


def components_of(vectors: csr_matrix) -> NDArray[np.float32]:
    """The components (d, m) of `vectors` (n, m), n and m at least 2; deterministic."""
    from sklearn.decomposition import TruncatedSVD

    # With as many directions as books, each book has its own, and nothing is learned about one from another.
    dimensions = min(DIMENSIONS, max(2, vectors.shape[0] // BOOKS_EACH), min(vectors.shape) - 1)
    found = TruncatedSVD(dimensions, random_state=0).fit(vectors)
    return np.ascontiguousarray(found.components_, dtype=np.float32)


def along(vectors: Compressed, components: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, d): `vectors` (n, m) @ the transpose of `components`, without SciPy, which is not installed for serving."""
    n = len(vectors.indptr) - 1
    owners = np.repeat(np.arange(n), np.diff(vectors.indptr))
    products = [np.bincount(owners, vectors.data * direction[vectors.indices], n) for direction in components]
    return np.array(products, dtype=np.float32).T
