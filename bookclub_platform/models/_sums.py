"""Books and what each posting adds to them -> each book once and its sum, in one array of the process.

    books, sums = SUMS.of(array([7, 3, 7]), array([0.1, 0.2, 0.3]), n=10)       3: 0.2, 7: 0.4

To make and zero an array for each request, or to sort the postings, takes as long as all else that a request does.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray


class _Sums:
    """For several threads, one at a time: each needs it for some tenths of a millisecond. Holds 4 bytes a book of the
    largest model, all 0 between two calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums = np.zeros(0, dtype=np.float32)

    def of(
        self, books: NDArray[np.int32], values: NDArray[np.float32], n: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Each of `books`, fewer than 2**24 and all below `n`, once, and the sum of its values."""
        ranks = np.arange(len(books), dtype=np.float32)
        with self._lock:
            if len(self._sums) < n:
                self._sums = np.zeros(n, dtype=np.float32)
            try:
                np.add.at(self._sums, books, values)
                sums = self._sums[books]
                self._sums[books] = ranks
                is_last = self._sums[books] == ranks
            finally:
                self._sums[books] = 0
        return books[is_last], sums[is_last]


SUMS = _Sums()
