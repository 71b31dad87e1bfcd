"""Model -> figures about its lists, without asking any reader: are they whole, and do they reach the catalogue?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import Model

LIMIT = 10
MOST_LISTS = 2_000
MOST_COMPARED = 500

MIN_COVERAGE = 0.98
MAX_EXPOSURE = 0.05  # and not below what few books make unavoidable


@dataclass(frozen=True, slots=True)
class ListHealth:
    """Figures over the top-10 lists of up to 2,000 books, spread evenly over the catalogue.

    Attributes:
        books: of the model; `lists`: how many were judged.
        coverage: share of books that have a list at all.
        reached: share of the books that stand in some list; NaN where not all lists were judged.
        with_itself: lists that hold their own book; `with_doubles`: that hold a book twice.
        largest_exposure: share of the lists that hold the most recommended book.
        exposures: (books,) in how many of the judged lists each book stands, most first.
    """

    books: int
    lists: int
    coverage: float
    reached: float
    with_itself: int
    with_doubles: int
    largest_exposure: float
    exposures: NDArray[np.int64] = field(compare=False, repr=False)

    @property
    def figures(self) -> dict[str, float]:
        """By the names of MLflow's metrics, without what is not a number."""
        found = {"coverage": self.coverage, "reached": self.reached, "largest_exposure": self.largest_exposure}
        return {name: value for name, value in found.items() if value == value}

    def faults(self, min_coverage: float = MIN_COVERAGE) -> list[str]:
        """What keeps these lists from readers, in words."""
        # Of n books the ten of a list are 10/n of them on average; the most wanted may well be four times that.
        most = max(MAX_EXPOSURE, 4 * LIMIT / self.books)
        found = {
            f"{self.with_itself} lists hold their own book": self.with_itself > 0,
            f"{self.with_doubles} lists hold a book twice": self.with_doubles > 0,
            f"only {self.coverage:.1%} of the books have a list": self.coverage < min_coverage,
            f"one book stands in {self.largest_exposure:.1%} of the lists": self.largest_exposure > most,
        }
        return [text for text, is_so in found.items() if is_so]


def list_health(model: Model) -> ListHealth:
    """Judge the lists of `model`, which is fitted on at least one book."""
    books = len(model.book_ids)
    chosen = model.book_ids[np.linspace(0, books - 1, min(MOST_LISTS, books), dtype=int)]
    lists = {int(book): [near.book_id for near in model.recommend(int(book), LIMIT)] for book in chosen}
    exposure = Counter(near for listed in lists.values() for near in set(listed))
    exposures = np.zeros(books, dtype=np.int64)
    exposures[: len(exposure)] = sorted(exposure.values(), reverse=True)
    return ListHealth(
        books=books,
        lists=len(lists),
        coverage=sum(bool(listed) for listed in lists.values()) / len(lists),
        reached=len(exposure) / books if len(lists) == books else float("nan"),
        with_itself=sum(book in listed for book, listed in lists.items()),
        with_doubles=sum(len(set(listed)) < len(listed) for listed in lists.values()),
        largest_exposure=max(exposure.values(), default=0) / len(lists),
        exposures=exposures,
    )


def stability(model: Model, champion: Model) -> float:
    """The share of the champion's top 10 that `model` keeps, over up to 500 books that both know; NaN without any."""
    both = np.intersect1d(model.book_ids, champion.book_ids)
    chosen = both[np.linspace(0, len(both) - 1, min(MOST_COMPARED, len(both)), dtype=int)]
    shares = []
    for book in chosen.tolist():
        now, before = ({near.book_id for near in one.recommend(book, LIMIT)} for one in (model, champion))
        if before:
            shares.append(len(now & before) / len(before))
    return float(np.mean(shares)) if shares else float("nan")
