"""Rows of the table -> each book's JSON as every answer writes it, kept as bytes for as long as its row is the same.

    kept.keep(rows, epoch)                       rows: of core.stock.SELECT_VERSIONED
    kept.of([7, 9], [831, 840], epoch)           [b'{"id":7,...', None]: of 9 that version is not at hand

A row's version is the transaction that wrote it, which tells nothing in another database: `epoch` counts those that
there may have been.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from serving.schemas import Book

_OVERHEAD_BYTES = 250  # of an entry, past its JSON


class BookBytes:
    """The books used last, as many as `capacity_bytes` hold; for several threads."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._books: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()
        self._lock = threading.Lock()
        self.size_bytes = 0

    def of(self, ids: Sequence[int], versions: Sequence[int], epoch: int) -> list[bytes | None]:
        """The JSON of each book in that version of its row, None where it is not kept."""
        return [self._one(book_id, version, epoch) for book_id, version in zip(ids, versions, strict=True)]

    def _one(self, book_id: int, version: int, epoch: int) -> bytes | None:
        kept = self._books.get(book_id)
        if kept is None or kept[0] != version or kept[1] != epoch:
            return None
        with contextlib.suppress(KeyError):  # another thread needed the room just now
            self._books.move_to_end(book_id)
        return kept[2]

    def keep(self, rows: Iterable[sa.Row[Any]], epoch: int) -> None:
        for row in rows:
            json = Book.model_validate(row).model_dump_json().encode()
            with self._lock:
                before = self._books.pop(row.id, None)
                self._books[row.id] = row.version, epoch, json
                self.size_bytes += _size(json) - (_size(before[2]) if before else 0)
                while self.size_bytes > self._capacity_bytes:
                    self.size_bytes -= _size(self._books.popitem(last=False)[1][2])


def _size(json: bytes) -> int:
    return len(json) + _OVERHEAD_BYTES
