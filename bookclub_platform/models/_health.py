"""Model -> figures about its lists, without asking any reader: are they whole, and do they reach the catalogue?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from bookclub_platform.models._contract import Model

LIMIT = 10
MOST_LISTS = 2_000


@dataclass(frozen=True, slots=True)
class ListHealth:
    """Figures over the top-10 lists of up to 2,000 books, spread evenly over the catalogue.

    Attributes:
        lists: how many were judged.
        coverage: share of books that have a list at all.
        with_itself: lists that hold their own book; `with_doubles`: that hold a book twice.
        largest_exposure: share of the lists that hold the most recommended book.
    """

    lists: int
    coverage: float
    with_itself: int
    with_doubles: int
    largest_exposure: float

    def is_sound(self, min_coverage: float) -> bool:
        return not self.with_itself and not self.with_doubles and self.coverage >= min_coverage


def list_health(model: Model) -> ListHealth:
    """Judge the lists of `model`, which is fitted on at least one book."""
    chosen = model.book_ids[np.linspace(0, len(model.book_ids) - 1, min(MOST_LISTS, len(model.book_ids)), dtype=int)]
    lists = {int(book): [near.book_id for near in model.recommend(int(book), LIMIT)] for book in chosen}
    exposure = Counter(near for listed in lists.values() for near in set(listed))
    return ListHealth(
        lists=len(lists),
        coverage=sum(bool(listed) for listed in lists.values()) / len(lists),
        with_itself=sum(book in listed for book, listed in lists.items()),
        with_doubles=sum(len(set(listed)) < len(listed) for listed in lists.values()),
        largest_exposure=max(exposure.values(), default=0) / len(lists),
    )
