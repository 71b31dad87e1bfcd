"""`file:<path below a folder>` -> Page: the counterpart of a Fetcher for files on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path
from typing import overload
from urllib.parse import quote, unquote

from bookclub_platform.core.errors import PermanentSourceError, SourceError
from bookclub_platform.sources._contract import FailedPage, Kind, Page, Unchanged, Validators
from bookclub_platform.sources._fetch import Counters

_SCHEME = "file:"
_PLAIN = "/:@!$&'()*+,;="  # by RFC 3986 (3.3), as they are


def file_address(path: str) -> str:
    """The address of a file below the folder. Quoted: a stored page would lose a space in it and never be found."""
    return f"{_SCHEME}{quote(path, safe=_PLAIN)}"


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """Files below `folder` only, even if symlinks lead out of it."""

    folder: Path
    max_bytes: int

    @contextmanager
    def open(self) -> Iterator[_Reader]:
        yield _Reader(self)

    def path(self, url: str) -> Path:
        folder = self.folder.resolve()
        path = (folder / unquote(url.removeprefix(_SCHEME))).resolve()
        if not path.is_relative_to(folder):
            raise PermanentSourceError(url, f"leads out of {folder}")
        if not path.is_file():
            raise PermanentSourceError(url, f"there is no file {path}. Put it there, or set BOOKCLUB_FILES.")
        return path


class _Reader:
    def __init__(self, files: LocalFiles) -> None:
        self.files = files
        self._counters = Counters()

    @overload
    def fetch(self, url: str, kind: Kind) -> Page: ...
    @overload
    def fetch(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged: ...
    def fetch(self, url: str, kind: Kind, validators: Validators | None = None) -> Page | Unchanged:
        """The file, or Unchanged if it still has the size and time in the ETag. Raises PermanentSourceError."""
        path, started = self.files.path(url), time.monotonic()
        try:
            facts = path.stat()
            if facts.st_size > self.files.max_bytes:
                raise PermanentSourceError(url, f"is larger than {self.files.max_bytes} bytes (`max_bytes`)")
            etag = f'"{facts.st_mtime_ns:x}-{facts.st_size:x}"'
            if validators is not None and validators.etag == etag:
                self._counted(304, started, b"")
                return Unchanged(url, (("ETag", etag),), kind, datetime.now(UTC))
            body = path.read_bytes()
        except OSError as error:
            raise PermanentSourceError(url, f"{path} cannot be read: {error.strerror}") from error
        self._counted(200, started, body)
        changed = format_datetime(datetime.fromtimestamp(facts.st_mtime, UTC), usegmt=True)
        headers = (("Content-Type", "application/octet-stream"), ("Last-Modified", changed), ("ETag", etag))
        return Page(url, 200, headers, body, kind, datetime.now(UTC))

    def _counted(self, status: int, started: float, body: bytes) -> None:
        """Count a read as a request, with the status that a shop would return."""
        self._counters.requests += 1
        self._counters.bytes += len(body)
        self._counters.statuses[status] += 1
        self._counters.time(started, status)

    @overload
    def fetch_many(self, urls: Iterable[str], kind: Kind) -> Iterator[Page | FailedPage]: ...
    @overload
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None
    ) -> Iterator[Page | Unchanged | FailedPage]: ...
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None = None
    ) -> Iterator[Page | Unchanged | FailedPage]:
        for url in urls:
            try:
                yield self.fetch(url, kind, validators(url) if validators is not None else None)
            except SourceError as error:
                yield FailedPage(url, kind, error.reason)

    def counters(self) -> Counters:
        return self._counters.copy()
