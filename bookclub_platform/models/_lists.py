"""The precomputed nearest of each book: a request reads one row and leaves out what may not be recommended now.

    lists.of(7, 10, works, may.take)        ->  ten places and their scores, or None: the list has fewer than ten

Needs only NumPy. _whole_lists.py and _nearest.py make the lists.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Allowed = Callable[[NDArray[np.integer]], NDArray[np.bool_]]
"""Places, -1 too, of which any answer will do -> whether the book at each may stand in a list."""


class Lists(NamedTuple):
    """(n, k) places and scores, nearest first, -1 and 0 for none; no book of the same work.

    No book outside a list is nearer than the last one in it.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.floating]

    def of(
        self, book: int, wanted: int, works: NDArray[np.int32], allowed: Allowed | None
    ) -> tuple[NDArray[np.int32], NDArray[np.floating]] | None:
        """The `wanted` nearest of the allowed books, one per work; None if the list has fewer. `works` is (n,)."""
        row = self.ids[book]
        # A Python loop over these few entries costs a third of NumPy's call overhead.
        for ids in (row[: 2 * wanted], row):
            may = np.ones(len(ids), dtype=np.bool_) if allowed is None else allowed(ids)
            if np.count_nonzero(may) < wanted:
                continue
            chosen: dict[int, int] = {}  # work -> its first rank
            for rank, (place, work, is_fit) in enumerate(
                zip(ids.tolist(), works[ids].tolist(), may.tolist(), strict=True)
            ):
                if is_fit and place >= 0 and work not in chosen:
                    chosen[work] = rank
                    if len(chosen) == wanted:
                        ranks = list(chosen.values())
                        return ids[ranks], self.scores[book][ranks]
        return None

    def fault(self, n: int) -> str | None:
        """Why these are not valid lists of `n` books, or None."""
        if self.ids.shape != self.scores.shape or len(self.ids) != n:
            return f"lists of {len(self.ids)} books, and {n} books"
        if self.ids.size and not (self.ids.min() >= -1 and self.ids.max() < n):
            return f"a list with a place outside 0..{n - 1}"
        return None if np.all((self.scores >= 0) & (self.scores <= 1.001)) else "lists with scores outside 0..1"
