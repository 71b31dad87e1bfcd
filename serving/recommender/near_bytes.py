"""A grown model -> the books near to a book, with score and reasons as JSON: an item of a list without the book itself.

    mask = Mask.of(may)                           of (p,): which books may be in a list
    near.of(7, 10, mask)                          Near(ids=[12, ...], told=[b',"score":0.41,"why":[...]}', ...])

What a pair of books shares depends only on the model, so it stays cached through every change of price and stock. Which
books are nearest depends on the model and the mask, so it stays cached through every change that keeps the mask.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from bookclub_platform.models import Allowed, Grown, Recommendation
from serving.recommender.masks import Bits, Mask

_OVERHEAD_BYTES = 150  # per pair, beyond its JSON
_RANKING_BYTES = 800  # per ranking, beyond the content of its arrays
_AT_ONCE = 30  # books
_NONE: dict[int, bytes] = {}

K = TypeVar("K")
V = TypeVar("V")


class Near(NamedTuple):
    """Ids (n,), nearest first, and the JSON of score and reasons of each."""

    ids: NDArray[np.int64]
    told: list[bytes]


class _Ranking(NamedTuple):
    ids: NDArray[np.int64]
    places: NDArray[np.integer]
    scores: NDArray[np.floating]


_Key = tuple[bytes, int, int, tuple[int, ...]]


class _Latest(Generic[K, V]):
    """The entries put in last, up to `capacity_bytes`; thread-safe."""

    def __init__(self, capacity_bytes: int, size: Callable[[V], int]) -> None:
        self._capacity_bytes, self._size = capacity_bytes, size
        self._held: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self.get = self._held.get
        self.size_bytes = 0

    def put(self, key: K, value: V) -> None:
        with self._lock:
            if (before := self._held.pop(key, None)) is not None:
                self.size_bytes -= self._size(before)
            self._held[key] = value
            self.size_bytes += self._size(value)
            while self.size_bytes > self._capacity_bytes:
                self.size_bytes -= self._size(self._held.popitem(last=False)[1])

    def drop(self, count: int) -> bool:
        """Drop the `count` oldest; return whether there were any."""
        with self._lock:
            dropped = [self._held.popitem(last=False)[1] for _ in range(min(count, len(self._held)))]
            self.size_bytes -= sum(map(self._size, dropped))
        return bool(dropped)


class NearBytes:
    """The rankings and reasons found last, up to `capacity_bytes`, a quarter of it for rankings; thread-safe.

    Attributes:
        told_all: digest of the last mask for which the lists of all books were prepared.
    """

    def __init__(self, grown: Grown, capacity_bytes: int) -> None:
        self.told_all: bytes | None = None
        self._grown = grown
        self._rankings = _Latest[_Key, _Ranking](capacity_bytes // 4, _size_of_ranking)
        self._pairs = _Latest[int, dict[int, bytes]](capacity_bytes - capacity_bytes // 4, _size_of_pairs)

    def of(self, book_id: int, limit: int, mask: Mask, exclude: tuple[int, ...] = ()) -> Near:
        """The `limit` nearest.

        Raises:
            KeyError: the model does not know the book.
        """
        key = mask.digest, book_id, limit, exclude
        return self._near(book_id, self._at_hand(key, mask.may.take) or self._searched(key, mask.may))

    def at_hand(self, book_id: int, limit: int, mask: Bits, exclude: tuple[int, ...] = ()) -> Near | None:
        """The same as `of`; None if it would need a search.

        Raises:
            KeyError: the model does not know the book.
        """
        ranking = self._at_hand((mask.digest, book_id, limit, exclude), mask.take)
        return ranking and self._near(book_id, ranking)

    def _near(self, book_id: int, ranking: _Ranking) -> Near:
        known = self._pairs.get(book_id, _NONE)
        wanted = ranking.ids.tolist()
        try:
            return Near(ranking.ids, [known[other] for other in wanted])
        except KeyError:
            known = self._tell(book_id, ranking, known)
            return Near(ranking.ids, [known[other] for other in wanted])

    def emptied(self) -> Iterator[None]:
        """Drop everything in short slices: all at once would take milliseconds in which no other thread runs."""
        self.told_all = None
        while self._pairs.drop(_AT_ONCE) or self._rankings.drop(_AT_ONCE):
            yield

    def _at_hand(self, key: _Key, allowed: Allowed) -> _Ranking | None:
        ranking, (_, book_id, limit, exclude) = self._rankings.get(key), key
        if ranking is None and not exclude:
            found = self._grown.listed(self._grown.place(book_id), limit, allowed)
            ranking = found and self._kept(key, *found)
        return ranking

    def _searched(self, key: _Key, may: NDArray[np.bool_]) -> _Ranking:
        _, book_id, limit, exclude = key
        return self._kept(key, *self._grown.ranked(self._grown.probe([book_id]), limit, may, exclude))

    def _kept(self, key: _Key, places: NDArray[np.integer], scores: NDArray[np.floating]) -> _Ranking:
        ranking = _Ranking(self._grown.ids[places], places, scores)
        if not key[-1]:  # a reader's `exclude` hardly occurs twice, and may be longer than the ranking
            self._rankings.put(key, ranking)
        return ranking

    def _tell(self, book_id: int, ranking: _Ranking, known: dict[int, bytes]) -> dict[int, bytes]:
        lacking = [rank for rank, other in enumerate(ranking.ids.tolist()) if other not in known]
        probe = self._grown.probe([book_id])
        found = self._grown.explained(probe, ranking.places[lacking], ranking.scores[lacking])
        known = known | dict(zip([near.book_id for near in found], _told(found), strict=True))
        self._pairs.put(book_id, known)
        return known


def _told(found: list[Recommendation]) -> list[bytes]:
    """The JSON of each, of at least one. All are rendered in one call, because its overhead exceeds the work for one.
    Quotes in texts are escaped, so the separator of two items is in no text."""
    items = [
        {"score": score, "why": [{"kind": kind, "value": value, "share": share} for kind, value, share in why]}
        for _, score, why in found
    ]
    told = to_json(items).removeprefix(b'[{"score":').removesuffix(b"}]")
    return [b',"score":' + one + b"}" for one in told.split(b'},{"score":')]


def _size_of_ranking(ranking: _Ranking) -> int:
    return _RANKING_BYTES + sum(part.nbytes for part in ranking)


def _size_of_pairs(pairs: dict[int, bytes]) -> int:
    return sum(map(len, pairs.values())) + _OVERHEAD_BYTES * len(pairs)
