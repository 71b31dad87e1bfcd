"""What readers liked -> pairs of books liked together beyond chance -> the quality of a model's lists.

    judge = Readers(rows, steps)                 # steps: what readers did, from core.feedback.select_steps
    judge.is_enough                              # else models/_judge.py judges, by proxies
    judgement = judge.judge(model)               # its scores, (q, 2), NaN where a measure does not apply to a book

The measures, each 0..1, over lists that contain only the books with reader data; all others are skipped as unjudged:

    readers_ndcg     the books that its readers like too: nDCG of the first ten
    across_ndcg      the same without the books of its own category, which a model that knows only categories finds

Two books belong together if more readers like both than their popularity explains, and if this holds without any single
one of these readers, so that no account alone makes a pair. A walk leads from a list to the list of a book found there.
What a reader liked on one walk reflects what the model showed, so only likes from different walks are combined. The
book that a walk began with counts as liked: the reader had found it without our recommendations. For the constants, and
the remaining influence of the model itself, see docs/decisions/0014-readers-as-judges.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import BookText, FoldableModel
from bookclub_platform.models._gate import Judgement
from bookclub_platform.models._judge import LIMIT, MOST_BOOKS, ndcg

MEASURES = ("readers_ndcg", "across_ndcg")
# From benchmarks/readers.py: from these numbers on, readers rank models better than the proxies do.
MIN_READERS = 1_000  # who liked books on two walks or more
MIN_QUERIES = 250  # books that belong together with others
# Models fitted on different random 97 % of the books differ by more in less than 1 of 100 cases, with so few queries.
MIN_GAIN = 0.025
FALSE_PAIRS = 0.1  # maximum share of pairs that exist by chance
DEPTH = 100  # of a list, to find ten books of other categories in it
_AT_ONCE = 2_000  # books whose pairs are counted per batch

_NO_BOOK = -1  # a list for several books, or for a text: it is not known which, so all of a reader's count as one


class Step(NamedTuple):
    """One action of a reader. Ids of readers and books are 0 or more.

    Attributes:
        for_book_id: the book in whose list `book_id` was found; None if the list was for several books, or for a text.
        is_liking: whether the reader liked the book; else the step only led on.
    """

    reader: int
    book_id: int
    for_book_id: int | None
    is_liking: bool


class Readers:
    """Judges models on one snapshot of the catalogue and of what readers did.

    Args:
        rows: the listed books.
        unknown_categories: slugs that do not count as a shelf.

    Attributes:
        readers: how many readers liked books on two walks or more.
        rows: the books that belong together with others.
    """

    name = "readers"
    min_gain = MIN_GAIN
    by_category = "how well the list finds what the readers of a book like too (nDCG@10)"

    def __init__(
        self, rows: Sequence[BookText], steps: Sequence[Step], unknown_categories: Collection[str] = ()
    ) -> None:
        listed = {row.id: row for row in sorted(rows, key=lambda row: row.id)}
        met = Counter(book for step in steps if step.is_liking for book in {step.book_id, step.for_book_id})
        known = [book for book, _ in met.most_common() if book in listed]
        book_ids = np.sort(np.array(known[:MOST_BOOKS], dtype=np.int64))
        self._related: Mapping[int, Sequence[int]] = {}
        self.readers = 0
        if len(book_ids):
            likes = _likes(steps, book_ids)
            self.readers = len(_judging(likes))
            self._related = _related(likes, book_ids)
        self.rows = [listed[book] for book in sorted(self._related)]
        self._shelf = {
            row.id: row.category if row.category not in unknown_categories else None for row in listed.values()
        }

    @property
    def queries(self) -> NDArray[np.int64]:
        """(q,) ids of the books whose lists are judged."""
        return np.array([row.id for row in self.rows], dtype=np.int64)

    @property
    def is_enough(self) -> bool:
        return self.readers >= MIN_READERS and len(self.rows) >= MIN_QUERIES

    @property
    def said(self) -> str:
        """Who judges, in words."""
        return f"{self.readers:,} readers"

    @property
    def shortage(self) -> str:
        """How many readers and books there are, of how many needed, in words."""
        return f"{self.readers:,} of {MIN_READERS:,} readers, {len(self.rows):,} of {MIN_QUERIES:,} books they agree on"

    @property
    def counts(self) -> dict[str, int]:
        """MLflow metric name -> number, whether it is enough or not."""
        return {"readers": self.readers, "readers_queries": len(self.rows)}

    def judge(self, model: FoldableModel, faults: Sequence[str] = ()) -> Judgement:
        """Score `model`, as it is, over these rows; `faults` are the guardrails that it breaks."""
        scores = np.full((len(self.rows), len(MEASURES)), np.nan)
        folded = model.fold(self.rows)
        for at, row in enumerate(self.rows):
            found = [near.book_id for near in folded.recommend(row.id, DEPTH)]
            wanted = set(self._related[row.id])
            scores[at, 0] = ndcg(found, wanted)
            if elsewhere := {book for book in wanted if not self._is_same_shelf(book, row.id)}:
                across = [book for book in found if not self._is_same_shelf(book, row.id)]
                scores[at, 1] = ndcg(across, elsewhere)
        return Judgement(self.queries, scores, tuple(faults), MEASURES, self.said)

    def by_shelf(self, judgement: Judgement) -> dict[str, tuple[float, int]]:
        """Category -> (mean `readers_ndcg` of its books, number of these books)."""
        found: dict[str, list[float]] = defaultdict(list)
        for book, score in zip(judgement.queries.tolist(), judgement.scores[:, 0].tolist(), strict=True):
            if (shelf := self._shelf[book]) is not None:
                found[shelf].append(score)
        return {shelf: (sum(scores) / len(scores), len(scores)) for shelf, scores in found.items()}

    def _is_same_shelf(self, one: int, other: int) -> bool:
        return self._shelf[one] is not None and self._shelf[one] == self._shelf[other]


class _Likes(NamedTuple):
    """Each (reader, book) once: the reader, the book's place among the books, and the walk."""

    readers: NDArray[np.int64]
    places: NDArray[np.int64]
    walks: NDArray[np.int64]


def _likes(steps: Sequence[Step], book_ids: NDArray[np.int64]) -> _Likes:
    """The likes of these books, and the books that walks with a like began with. A walk is a connected component: the
    books that one reader's steps link from list to list."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = np.array(
        [(reader, book, _NO_BOOK if of is None else of, likes) for reader, book, of, likes in steps], dtype=np.int64
    )
    readers = table[:, 0]
    stops = np.concatenate([table[:, [0, 1]], table[:, [0, 2]]])
    visited, at = np.unique(stops, axis=0, return_inverse=True)
    here, before = at.reshape(2, len(readers))
    links = coo_matrix((np.ones(len(here)), (here, before)), shape=(len(visited),) * 2)
    _, walks = connected_components(links, directed=False)
    is_liking = table[:, 3] == 1
    # A reader who takes something from the list of a book to which no list led had found that book without us.
    own = np.setdiff1d(before[is_liking], here)
    liked = np.union1d(here[is_liking], own)
    liked = liked[np.isin(visited[liked, 1], book_ids)]
    return _Likes(visited[liked, 0], np.searchsorted(book_ids, visited[liked, 1]), walks[liked].astype(np.int64))


def _judging(likes: _Likes) -> NDArray[np.int64]:
    """The readers with likes that can be combined: those on more than one walk."""
    of_walks = np.unique(np.stack([likes.readers, likes.walks], axis=1), axis=0)[:, 0]
    readers, walks = np.unique(of_walks, return_counts=True)
    return readers[walks > 1]


def _related(likes: _Likes, book_ids: NDArray[np.int64]) -> dict[int, list[int]]:
    """id -> up to ten books that it belongs together with most; only for books that have any."""
    from scipy.sparse import csc_matrix
    from scipy.stats import poisson

    def table(owners: NDArray[np.int64]) -> csc_matrix:
        found, rows = np.unique(owners, return_inverse=True)
        return csc_matrix((np.ones(len(rows)), (rows, likes.places)), shape=(len(found), len(book_ids)))

    of_reader, of_walk = table(likes.readers), table(likes.walks)
    liked_by = np.asarray(of_reader.sum(axis=0)).ravel()
    both, one, other = [], [], []
    for start in range(0, len(book_ids), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        counts = (of_reader[:, part].T @ of_reader - of_walk[:, part].T @ of_walk).tocoo()
        is_many = counts.data > 2.5  # whole numbers; fewer could be chance once any one reader is left out
        both.append(counts.data[is_many])
        one.append(counts.row[is_many] + start)
        other.append(counts.col[is_many])
    together, left, right = map(np.concatenate, (both, one, other))
    pairs = sum(float((np.asarray(t.sum(axis=1)) ** 2).sum()) * sign for t, sign in ((of_reader, 1), (of_walk, -1)))
    expected = pairs * liked_by[left] * liked_by[right] / liked_by.sum() ** 2
    chance = poisson.sf(together - 2, expected)  # the probability of at least as many, less one of the readers
    is_sure = _surely(chance, len(book_ids) * (len(book_ids) - 1))
    cosine = together / np.sqrt(liked_by[left] * liked_by[right])
    found: dict[int, list[int]] = defaultdict(list)
    for at in np.flatnonzero(is_sure)[np.argsort(-cosine[is_sure], kind="stable")].tolist():
        relatives = found[int(book_ids[left[at]])]
        if len(relatives) < LIMIT:
            relatives.append(int(book_ids[right[at]]))
    return found


def _surely(chance: NDArray[np.float64], tests: int) -> NDArray[np.bool_]:
    """Those so improbable, among `tests`, that at most FALSE_PAIRS of them are false (Benjamini and Hochberg)."""
    in_order = np.sort(chance)
    passed = np.flatnonzero(in_order <= FALSE_PAIRS * np.arange(1, len(chance) + 1) / tests)
    return chance <= (in_order[passed[-1]] if len(passed) else -1)
