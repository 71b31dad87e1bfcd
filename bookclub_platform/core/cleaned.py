"""Cleaned rows of a category <-> one file with a line of JSON per row: neither side holds a whole category in memory.

    write_cleaned(path, cleaned); read_cleaned(path).books

First line: the crawl and how many rows of each kind follow; then the rejected rows, then the books.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from pydantic import TypeAdapter

from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.files import replaced

_BLOCK = 1 << 18


@dataclass(frozen=True, slots=True)
class CleanedCategory:
    """What `cleaned_books` passes to `books`: one category of one crawl.

    Attributes:
        is_complete: the crawl got every page of the category that the shop lists.
        books: read from the file again on each iteration; all iterations see the same file.
    """

    crawl_id: str
    crawled_at: datetime
    is_complete: bool
    books: Collection[Book]
    rejected: Sequence[RejectedBook]


@dataclass(frozen=True, slots=True)
class _Header:
    crawl_id: str
    crawled_at: datetime
    is_complete: bool
    rejected: int
    books: int


_header, _book, _rejected = TypeAdapter(_Header), TypeAdapter(Book), TypeAdapter(RejectedBook)


def write_cleaned(path: Path, cleaned: CleanedCategory) -> Path:
    """Replace the file at `path` atomically: a reader sees the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = _Header(
        cleaned.crawl_id,
        cleaned.crawled_at,
        cleaned.is_complete,
        len(cleaned.rejected),
        len(cleaned.books),
    )
    with replaced(path) as file:
        file.write(_header.dump_json(header) + b"\n")
        file.writelines(_rejected.dump_json(row) + b"\n" for row in cleaned.rejected)
        file.writelines(_book.dump_json(row) + b"\n" for row in cleaned.books)
    return path


def read_cleaned(path: Path) -> CleanedCategory | None:
    """The last written category, None if there is none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    header = _header.validate_json(file.readline())
    rejected = [_rejected.validate_json(file.readline()) for _ in range(header.rejected)]
    books = _BooksOfFile(file, file.tell(), header.books)
    return CleanedCategory(header.crawl_id, header.crawled_at, header.is_complete, books, rejected)


class _BooksOfFile(Collection[Book]):
    """The rows from `start` on. The file stays open, so that a newer file in its place does not change these rows."""

    def __init__(self, file: IO[bytes], start: int, count: int) -> None:
        self._file, self._start, self._count = file, start, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Book]:
        at, rest, found = self._start, b"", 0
        while block := os.pread(self._file.fileno(), _BLOCK, at):
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            found += len(lines)
            yield from map(_book.validate_json, lines)
        if found != self._count:
            raise ValueError(f"{self._file.name} has {found} books and not {self._count}: clean the category again")

    def __contains__(self, book: object) -> bool:
        return any(one == book for one in self)
