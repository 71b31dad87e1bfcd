"""Rows of the table -> each book's JSON as every answer writes it, kept as bytes for as long as its row is the same.

    kept.keep(rows, epoch)                       rows: of core.stock.SELECT_VERSIONED
    kept.of([7, 9], [831, 840], epoch)           [b'{"id":7,...', None]: of 9 that version is not at hand

Those of a large catalogue lie in `files`, of which there is one copy for all workers.

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

from serving.books.book_files import BookFiles
from serving.schemas.books import Book

_OVERHEAD_BYTES = 250  # of an entry, past its JSON
_NONE = (-1, -1, b"")


class BookBytes:
    """The books used last, as many as `capacity_bytes` hold, and all that are in `files`; for several threads."""

    def __init__(self, capacity_bytes: int, files: BookFiles | None = None) -> None:
        self._capacity_bytes, self.files = capacity_bytes, files
        self._books: OrderedDict[int, tuple[int, int, bytes]] = OrderedDict()
        self._has_lost = False  # until then nobody need know which were used last
        self._lock = threading.Lock()
        self.size_bytes = 0

    def of(self, ids: Sequence[int], versions: Sequence[int], epoch: int) -> list[bytes | None]:
        """The JSON of each book in that version of its row, None where it is not kept."""
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
