"""A model that grows -> how near books are to a book, and why, as JSON: an item of a list, but for the book in it.

    near.of(7, Choice(limit=10), is_allowed)      [(12, b'"score":0.41,"why":[...]}'), ...]

What a pair of books shares follows from the model alone, and outlives every change of price and stock.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

from bookclub_platform.models import Grown, Recommendation

_OVERHEAD_BYTES = 150  # of a pair, past its JSON


class NearBytes:
    """The reasons of the books asked for last, as many as `capacity_bytes` hold; for several threads."""

    def __init__(self, grown: Grown, capacity_bytes: int) -> None:
        self._grown, self._capacity_bytes = grown, capacity_bytes
        self._pairs: OrderedDict[int, dict[int, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def of(
        self, book_id: int, limit: int, is_allowed: NDArray[np.bool_], exclude: Collection[int] = ()
    ) -> list[tuple[int, bytes]]:
        """The ids of the `limit` nearest, nearest first, and what is told of each.

        Raises:
            KeyError: the model does not know the book.
        """
        listed = None if exclude else self._grown.listed(self._grown.place(book_id), limit, is_allowed)
        ranked = listed or self._grown.ranked(self._grown.probe([book_id]), limit, is_allowed, exclude)
        places, scores = ranked
        wanted = places.tolist()
        known = self._pairs.get(book_id, {})
        lacking = [rank for rank, place in enumerate(wanted) if place not in known]
        if lacking:
            found = self._grown.explained(self._grown.probe([book_id]), places[lacking], scores[lacking])
            told = {wanted[rank]: _told(near) for rank, near in zip(lacking, found, strict=True)}
            known = known | told
            self._keep(book_id, known)
        return [(other, known[place]) for other, place in zip(self._grown.ids[places].tolist(), wanted, strict=True)]

    def _keep(self, book_id: int, known: dict[int, bytes]) -> None:
        with self._lock:
            self.size_bytes += _size(known) - _size(self._pairs.pop(book_id, {}))
            self._pairs[book_id] = known
            while self.size_bytes > self._capacity_bytes:
                self.size_bytes -= _size(self._pairs.popitem(last=False)[1])


def _told(near: Recommendation) -> bytes:
    why = [{"kind": kind, "value": value, "share": share} for kind, value, share in near.why]
    return to_json({"score": near.score, "why": why})[1:]


def _size(pairs: dict[int, bytes]) -> int:
    return sum(map(len, pairs.values())) + _OVERHEAD_BYTES * len(pairs)
