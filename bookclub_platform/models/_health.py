"""Model -> figures about its lists, without any reader data: are the lists complete, and do they reach the catalogue?

health = list_health(model, rows)        # rows: their titles decide which books are the same work
health.faults(champion_health)           # in words; empty if the lists may be shown to readers
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import BookText, Model
from bookclub_platform.models._lists import Lists
from bookclub_platform.models._text import work_key
from bookclub_platform.models.tfidf import Tfidf

LIMIT = 10
MOST_LISTS = 2_000
MOST_COMPARED = 500

MIN_COVERAGE = 0.98
# The minimum for a challenger. Where a shop's books let no model reach it, coming near the champion is enough. A first
# model only has to make sense: without any model, readers are worse off than with one that hides a few books.
MIN_FILLED, MIN_REACHED = 0.9, 0.98
NEARLY, NO_NONSENSE = 0.01, 0.5
FEW_UNREACHED = 2  # works; no fault even in a catalogue so small that they are more than 2 % of it
MAX_EXPOSURE = 0.05  # higher where a small catalogue makes more unavoidable
# A value this many times the champion's is a fault, unless it is small in itself and so no burden to a server.
MOST_TIMES = 2
LITTLE_MB, LITTLE_MS = 100, 5
_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class ListHealth:
    """Figures over the top-10 lists of up to 2,000 books, spread evenly over the catalogue.

    Attributes:
        books: the number of books in the model; `lists`: how many lists were judged.
        coverage: share of books that have a list at all.
        filled: share of the places in these lists that hold a book.
        works: the number of works; `reached`: the share of them that is in some list. For a larger catalogue, from the
            model's precomputed lists of all books; NaN without these.
        with_itself: lists that hold their own book, or another edition of it.
        with_doubles: lists that hold a work twice.
        largest_exposure: share of the lists that hold the most recommended book.
        list_ms: the median CPU time of a list; `megabytes`: the size of the model.
        exposures: (books,) how many of the judged lists hold each book, highest first.
    """

    books: int
    lists: int
    coverage: float
    filled: float
    works: int
    reached: float
    with_itself: int
    with_doubles: int
    largest_exposure: float
    list_ms: float
    megabytes: float
    exposures: NDArray[np.int64] = field(compare=False, repr=False)

    @property
    def figures(self) -> dict[str, float]:
        """MLflow metric name -> value, without NaN."""
        names = ("coverage", "filled", "reached", "largest_exposure", "list_ms", "megabytes")
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value == value}

    def faults(self, champion: ListHealth | None = None) -> list[str]:
        """Why these lists must not be shown to readers, in words; size and time count only against a champion."""
        # Among n books, one is in 10/n of the lists on average; the most popular may well be in four times as many.
        most = max(MAX_EXPOSURE, 4 * LIMIT / self.books)
        unreached = (1 - self.reached) * self.works
        least_filled = _least(MIN_FILLED, champion.filled if champion else None)
        least_reached = _least(MIN_REACHED, champion.reached if champion else None)
        found = {
            f"{self.with_itself} lists hold their own book": self.with_itself > 0,
            f"{self.with_doubles} lists hold a book twice": self.with_doubles > 0,
            f"only {self.coverage:.1%} of the books have a list": self.coverage < MIN_COVERAGE,
            f"only {self.filled:.1%} of the places in the lists are filled": self.filled < least_filled,
            f"only {self.reached:.1%} of the books stand in any list": round(unreached, 6)
            > max(FEW_UNREACHED, (1 - least_reached) * self.works),
            f"one book stands in {self.largest_exposure:.1%} of the lists": self.largest_exposure > most,
        }
        return [text for text, is_so in found.items() if is_so] + (self._burdens(champion) if champion else [])

    def _burdens(self, champion: ListHealth) -> list[str]:
        """Faults that would burden a server. If the catalogue has grown, the model may have grown with it."""
        megabytes = champion.megabytes * max(1.0, self.books / champion.books)
        found = {
            f"it has {self.megabytes:.0f} MB, and of the champion's kind it would have {megabytes:.0f}": self.megabytes
            > max(LITTLE_MB, MOST_TIMES * megabytes),
            f"a list takes {self.list_ms:.1f} ms, and the champion's {champion.list_ms:.1f}": self.list_ms
            > max(LITTLE_MS, MOST_TIMES * champion.list_ms),
        }
        return [text for text, is_so in found.items() if is_so]


def _least(wanted: float, champions: float | None) -> float:
    if champions is None:
        return NO_NONSENSE
    return float(np.fmin(wanted, champions - NEARLY))  # the champion's may be unknown, NaN


def list_health(model: Model, rows: Sequence[BookText]) -> ListHealth:
    """Judge the lists of `model`, fitted on at least one book. A book that is not in `rows` counts as its own work.

    Works are identified here and not by the model: that may be what is wrong with it.
    """
    titles = {row.id: row.title for row in rows}
    works = {book: work_key(titles[book]) if book in titles else str(book) for book in model.book_ids.tolist()}
    books, n_works = len(works), len(set(works.values()))
    chosen = model.book_ids[np.linspace(0, books - 1, min(MOST_LISTS, books), dtype=int)].tolist()
    lists, list_ms = _asked(model, chosen)
    exposure = Counter(near for listed in lists.values() for near in set(listed))
    exposures = np.zeros(books, dtype=np.int64)
    exposures[: len(exposure)] = sorted(exposure.values(), reverse=True)
    places = len(lists) * min(LIMIT, n_works - 1)
    return ListHealth(
        books=books,
        lists=len(lists),
        coverage=sum(bool(listed) for listed in lists.values()) / len(lists),
        filled=sum(map(len, lists.values())) / places if places else 1.0,
        works=n_works,
        reached=_reached(model, works, set(exposure) if len(lists) == books else None) / n_works,
        with_itself=sum(works[book] in {works[near] for near in listed} for book, listed in lists.items()),
        with_doubles=sum(len({works[near] for near in listed}) < len(listed) for listed in lists.values()),
        largest_exposure=max(exposure.values(), default=0) / len(lists),
        list_ms=list_ms,
        megabytes=model.nbytes / 1e6,
        exposures=exposures,
    )


def _asked(model: Model, books: Sequence[int]) -> tuple[dict[int, list[int]], float]:
    """The list of each book, and the median CPU time per list in milliseconds, which other load affects little."""
    lists, took = {}, []
    for book in books:
        started = time.thread_time()
        near = model.recommend(book, LIMIT)
        took.append(time.thread_time() - started)
        lists[book] = [one.book_id for one in near]
    return lists, 1000 * float(np.median(took))


def _reached(model: Model, works: Mapping[int, str], shown: set[int] | None) -> float:
    """How many works are in some list; `shown` are the books in any list, if all lists were requested."""
    if shown is None and isinstance(model, Tfidf) and model.lists_ is not None:
        shown = set(model.book_ids[_shown(model.lists_, model.works_)].tolist())
    return len({works[book] for book in shown}) if shown is not None else float("nan")


def _shown(lists: Lists, works: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n,): whether each book is among the first `LIMIT` of some list, counting one book per work."""
    shown = np.zeros(len(works), dtype=np.bool_)
    for start in range(0, len(works), _AT_ONCE):
        ids = lists.ids[start : start + _AT_ONCE, : 2 * LIMIT]
        of = works[ids]
        is_first = [(of[:, :rank] != of[:, rank, None]).all(axis=1) for rank in range(ids.shape[1])]
        may = np.stack(is_first, axis=1) & (ids >= 0)
        shown[ids[may & (np.cumsum(may, axis=1) <= LIMIT)]] = True
    return shown


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
