"""Rows of the table -> each book's JSON as every response contains it, cached as bytes while its row stays the same.

    kept.keep(rows, epoch)                       rows: of core.stock.SELECT_VERSIONED
    kept.of([7, 9], [831, 840], epoch)           [b'{"id":7,...', None]: book 9 is not cached in that version

The JSON of a large catalogue is in `files`, which all workers share.

A row's version is the transaction that wrote it, which means nothing in another database: `epoch` counts how often the
database may have been replaced.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from serving.books.book_files import BookFiles
from serving.schemas.books import Book

_OVERHEAD_BYTES = 250  # per entry, beyond its JSON
_NONE = (-1, -1, b"")


class BookBytes:
    """The most recently used books, up to `capacity_bytes`, and all those in `files`; thread-safe."""

    def __init__(self, capacity_bytes: int, files: BookFiles | None = None) -> None:
        self._capacity_bytes, self.files = capacity_bytes, files
        self._books: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()
        self._has_lost = False  # until something is evicted, the order of use does not matter
        self._lock = threading.Lock()
        self.size_bytes = 0

    def of(self, ids: Sequence[int], versions: Sequence[int], epoch: int) -> list[bytes | None]:
        """The JSON of each book in that version of its row; None if it is not cached."""
        if self._has_lost:
            for book_id in ids:
                with contextlib.suppress(KeyError):
                    self._books.move_to_end(book_id)
        kept = [self._books.get(book_id, _NONE) for book_id in ids]
        found = [
            one[2] if one[0] == version and one[1] == epoch else None
            for one, version in zip(kept, versions, strict=True)
        ]
        if self.files is None or None not in found:
            return found
        filed = self.files.of(ids, versions, epoch)
        return [one if one is not None else other for one, other in zip(found, filed, strict=True)]

    def keep(self, rows: Iterable[sa.Row[Any]], epoch: int) -> None:
        for row in rows:
            json = Book.model_validate(row).model_dump_json().encode()
            with self._lock:
                before = self._books.pop(row.id, None)
                self._books[row.id] = row.version, epoch, json
                self.size_bytes += _size(json) - (_size(before[2]) if before else 0)
                while self.size_bytes > self._capacity_bytes:
                    self._has_lost = True
                    self.size_bytes -= _size(self._books.popitem(last=False)[1][2])


def _size(json: bytes) -> int:
    return len(json) + _OVERHEAD_BYTES
