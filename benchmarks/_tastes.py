"""Pairs of books that belong together -> made-up readers who like such pairs, or books that a model shows -> steps.

This contains no real reading history: the readers are drawn at random from a seed. Their likes are half taste (or the
given share) and half the popularity of books, which follows Zipf's law.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models import BookText, Recommendation, Step, Tfidf

ZIPF = 0.7
TRUST = 3.0  # at the same place of a list, how much more likely a reader is to like a book to their taste


class Tastes:
    """Draws readers of the books 1..n. `pairs` are ids of books that belong together."""

    def __init__(self, books: int, pairs: Iterable[tuple[int, int]], seed: int) -> None:
        self.random = np.random.default_rng(seed)
        popularity = self.random.permutation(1 / np.arange(1, books + 1) ** ZIPF)
        self._up_to = np.cumsum(popularity / popularity.sum())
        near: dict[int, set[int]] = defaultdict(set)
        for one, other in pairs:
            near[one].add(other)
            near[other].add(one)
        self.near = {book: sorted(others) for book, others in near.items()}

    def likes(self, readers: int, taste: float, mean: float = 6) -> list[Step]:
        """Likes of made-up readers, each found on a separate walk (models/_readers.py)."""
        return [
            Step(reader, book, book, True)
            for reader in range(readers)
            for book in self._books(taste, mean)
        ]  # fmt: skip

    def clicks(self, steps: Sequence[Step], taste: float, per_like: int = 3) -> list[Step]:
        """Clicks, counted as if they were likes, too; `taste`: the share that is to the reader's taste."""
        made = [
            (step.reader, book) for step in steps for book in self._beside(step.book_id, taste, per_like)
        ]  # fmt: skip
        return [Step(reader, book, book, True) for reader, book in made]

    def shown(self, readers: int, taste: float, shows: Ranked, mean: float = 6) -> list[Step]:
        """Readers look at the lists of books to their taste, and like books from them, the upper places most often."""
        return [
            Step(reader, book, seed, True)
            for reader in range(readers)
            for seed in self._books(taste, mean)
            for book in self._taken(seed, shows)
        ]

    def _taken(self, seed: int, shows: Ranked) -> Iterator[int]:
        for place, near in enumerate(shows.recommend(seed, 10), 1):
            chance = 0.4 / np.log2(place + 1)
            if self.random.random() < (chance if near.book_id in self.near.get(seed, ()) else chance / TRUST):
                yield near.book_id

    def _beside(self, book: int, taste: float, count: int) -> Iterator[int]:
        for _ in range(count):
            near = self.near.get(book)
            yield int(self.random.choice(near)) if near and self.random.random() < taste else self._popular()

    def _books(self, taste: float, mean: float) -> list[int]:
        wanted = 1 + self.random.geometric(1 / (mean - 1))
        mine = [self._popular()]
        for _ in range(3 * wanted):
            if len(mine) == wanted:
                break
            (book,) = self._beside(mine[self.random.integers(len(mine))], taste, 1)
            if book not in mine:
                mine.append(book)
        return mine

    def _popular(self) -> int:
        return int(np.searchsorted(self._up_to, self.random.random())) + 1


class Ranked:
    """A model of the books 1..n with all lists precomputed, so that many judges can query it."""

    name = "ranked"

    def __init__(self, order: NDArray[np.integer], among: NDArray[np.bool_] | None = None) -> None:
        self.order = order  # (n, n) ids, nearest first, then 0
        self.book_ids = np.arange(1, len(order) + 1)
        self._among = np.ones(len(order) + 1, dtype=bool) if among is None else among
        self._among[0] = False

    @classmethod
    def of(cls, model: Tfidf) -> Ranked:
        scores = np.array([model._scores(at) for at in range(len(model.book_ids))])
        scores[model.works_[:, None] == model.works_[None]] = 0
        return cls.by(scores)

    @classmethod
    def by(cls, scores: NDArray[np.floating]) -> Ranked:
        order = np.argsort(-scores, axis=1, kind="stable")
        return cls(np.where(np.take_along_axis(scores, order, axis=1) > 0, order + 1, 0).astype(np.int32))

    def fold(self, rows: Sequence[BookText]) -> Ranked:
        among = np.zeros(len(self.order) + 1, dtype=bool)
        among[[row.id for row in rows]] = True
        return Ranked(self.order, among)

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        row = self.order[book_id - 1]
        return [Recommendation(book, 0.0, []) for book in row[self._among[row]][:limit].tolist()]


def every_pair(relevant: Mapping[str, Sequence[str]], id_of: Mapping[str, int]) -> list[tuple[int, int]]:
    return [(id_of[one], id_of[other]) for one, others in relevant.items() for other in others]
