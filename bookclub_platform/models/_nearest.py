"""Unit vectors of very many books -> the nearest of each, for all books at once, instead of one search per request.

    lists, figures = nearest_lists(index, works)        index: InvertedIndex; works: (n,) int32
    lists.ids, lists.scores                             (n, 50) int32 places and float32 cosines; -1 and 0 for none

_whole_lists.py makes the lists of smaller catalogues, and those with an embedding. The method depends on the number of
books. Up to 100,000, every book that could be among the nearest is scored, so the lists are exact. Beyond, only the
best by a bounded number of postings are scored, and `figures` holds the recall against exact lists, measured on random
books. The result does not depend on the number of threads. Making the lists needs Numba, which compiles for some
seconds the first time; reading them needs only NumPy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._index import InvertedIndex
from bookclub_platform.models._lists import Lists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LENGTH = 50
EXACT_UP_TO = 100_000
MIN_RECALL = 0.985  # on the sample that selects the budget; the sample that judges may differ by some thousandths
_SAMPLE = 1_000
_CANDIDATES = 128
_BUDGETS: tuple[int, ...] = tuple(2**power for power in range(11, 21))
_CUTS = (1.0, 0.2, 0.1, 0.05, 0.03, 0.02, 0.01)

_Matrix = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]
_Scan = Callable[[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]], None]


@dataclass(frozen=True, slots=True)
class ListFigures:
    """How the lists were made.

    Attributes:
        recall_at_10: share of the exact ten nearest that the lists hold, on 1,000 books that selected nothing; 1 if
            exact.
        budget: maximum number of postings summed for a book; 0 if exact.
        seconds: wall-clock time, including the selection of the method's parameters and the judging.
    """

    method: Literal["exact", "two stages"]
    recall_at_10: float
    budget: int
    seconds: float


def nearest_lists(
    index: InvertedIndex,
    works: NDArray[np.int32],
    k: int = LENGTH,
    *,
    exact_up_to: int = EXACT_UP_TO,
    threads: int | None = None,
    seed: int = 0,
) -> tuple[Lists, ListFigures]:
    """The `k` nearest of each book, one per work and none of its own work; ties go to the first place."""
    started = time.perf_counter()
    n = len(works)
    search = _Search(index, works, k, threads or _cores(), np.random.default_rng(seed))
    everyone = np.arange(n)
    if n <= exact_up_to:
        lists = search.run(search.exact(search.best_cut()), everyone)
        return lists, ListFigures("exact", 1.0, 0, time.perf_counter() - started)
    exact = search.exact(search.best_cut())
    budget = search.least_budget(exact)
    lists = search.run(search.bounded(budget), everyone)
    judged = search.sample()
    found = recall(Lists(lists.ids[judged], lists.scores[judged]), search.run(exact, judged))
    return lists, ListFigures("two stages", found, budget, time.perf_counter() - started)


def recall(lists: Lists, exact: Lists, depth: int = 10) -> float:
    """Share of the first `depth` of `exact` that are among the first `depth` of `lists`, or tie with the last."""
    is_wanted = exact.ids[:, :depth] >= 0
    # By score: any book that ties with the last one is right.
    least = exact.scores[:, :depth].min(axis=1, initial=np.inf, where=is_wanted)
    found = (lists.scores[:, :depth] >= least[:, None]).sum(axis=1)
    wanted = is_wanted.sum(axis=1)
    return float(np.minimum(found, wanted).sum() / max(1, wanted.sum()))


def _empty(n: int, k: int) -> Lists:
    return Lists(np.full((n, k), -1, dtype=np.int32), np.zeros((n, k), dtype=np.float32))


class _Search:
    """The matrix with its columns sorted by how many books have them, and the ways to search it."""

    def __init__(
        self, index: InvertedIndex, works: NDArray[np.int32], k: int, threads: int, random: np.random.Generator
    ) -> None:
        self.works, self.k, self.threads, self.random = np.ascontiguousarray(works), k, threads, random
        self.by_book, self.by_column = _ordered(index)
        self.owners = np.repeat(np.arange(len(works), dtype=np.int32), np.diff(self.by_book[0]))

    def sample(self) -> NDArray[np.int64]:
        n = len(self.works)
        return np.sort(self.random.choice(n, min(_SAMPLE, n), replace=False))

    def exact(self, share: float) -> _Scan:
        """An exact scan that leaves terms in more than `share` of the books to its second stage."""
        from bookclub_platform.models._kernels import scan_all

        _, columns, values = self.by_book
        cut = int(np.searchsorted(np.diff(self.by_column[0]), share * len(self.works), side="right"))
        is_left = columns >= cut
        squares = np.bincount(self.owners[is_left], values[is_left].astype(np.float64) ** 2, len(self.works))
        rest = np.sqrt(squares).astype(np.float32)
        by_rest = np.argsort(-rest, kind="stable").astype(np.int32)
        return lambda rows, ids, scores: scan_all(
            rows, self.by_book, self.by_column, self.works, cut, rest, by_rest, ids, scores
        )

    def bounded(self, budget: int) -> _Scan:
        from bookclub_platform.models._kernels import scan_some

        return lambda rows, ids, scores: scan_some(
            rows, self.by_book, self.by_column, self.works, budget, _CANDIDATES, ids, scores
        )

    def best_cut(self) -> float:
        """The share of `_CUTS` that costs least on a few books. All of them give the same lists."""
        few = self.sample()[:: _SAMPLE // 200]
        self.run(self.exact(1.0), few[:1])  # compile now, outside the measurement
        return min(_CUTS, key=lambda share: self._cpu_s(self.exact(share), few))

    def least_budget(self, exact: _Scan) -> int:
        """The smallest of `_BUDGETS` with a recall of at least `MIN_RECALL`, else the largest."""
        sample = self.sample()
        expected = self.run(exact, sample)
        for budget in _BUDGETS[:-1]:
            if recall(self.run(self.bounded(budget), sample), expected) >= MIN_RECALL:
                return budget
        return _BUDGETS[-1]

    def _cpu_s(self, scan: _Scan, rows: NDArray[np.int64]) -> float:
        started = time.thread_time()  # CPU time, so that other load on the machine does not count
        ids, scores = _empty(len(rows), self.k)
        scan(rows, ids, scores)
        return time.thread_time() - started

    def run(self, scan: _Scan, rows: NDArray[np.int64]) -> Lists:
        """The lists of `rows`, computed by all threads."""
        ids, scores = _empty(len(rows), self.k)
        # More parts than threads, so that all end at about the same time. Each part allocates sums for n books.
        bounds = np.linspace(0, len(rows), self.threads * 8 + 1, dtype=int)
        with ThreadPoolExecutor(self.threads) as pool:
            parts = [slice(start, end) for start, end in pairwise(bounds) if start < end]
            list(pool.map(lambda part: scan(rows[part], ids[part], scores[part]), parts))
        return Lists(ids, scores)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ordered(index: InvertedIndex) -> tuple[_Matrix, _Matrix]:
    """The matrix by book and by column, with columns, and so each row's entries, sorted by how many books have them."""
    from scipy.sparse import csr_matrix

    n, m = len(index.by_book.indptr) - 1, len(index.by_column.indptr) - 1
    order = np.argsort(np.diff(index.by_column.indptr), kind="stable")
    place = np.empty(m, dtype=np.int32)
    place[order] = np.arange(m)
    values = index.by_book.data.copy()  # sorted in place below, and the index belongs to the model
    by_book = csr_matrix((values, place[index.by_book.indices], index.by_book.indptr), shape=(n, m))
    by_book.sort_indices()
    return _matrix(by_book), _matrix(by_book.T.tocsr())


def _matrix(matrix: csr_matrix) -> _Matrix:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data
