"""Page -> `<folder>/<source>/<category>/<crawl_id>.warc.gz` -> Page: the pages of one crawl of one category.

A file begins with a warcinfo record (which category this is) and ends with a metadata record (whether every page came,
and which older files it rests on). While it grows it is called `.part`, so that a crawl that was killed is never taken
for one that ended; the next crawl of the category takes it up.

A page that has not changed since the last complete crawl is kept as a revisit record, which names the file and offset
of the page itself: never of another revisit, so what a file rests on is one step away. Who deletes old files keeps
`KeptCrawl.rests_on` of those that stay.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources._contract import Kind, Page, Unchanged
from bookclub_platform.sources._warc import Place, RecordWriter, facts_of, page_at, records

_SUFFIX = ".warc.gz"
_PAGES = {"response", "revisit"}
_NO_END = "ends before the crawl's end. Crawl it again."
# A crawl killed in the night is taken up in the morning; that of yesterday is not, or one crawl would have two days'
# prices in it (crawls are daily).
RESUME_WITHIN = timedelta(hours=12)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCrawl:
    """One crawl of one category that ended.

    Attributes:
        is_complete: every page that the shop lists came; if not, the file has those that did.
        finished_at: UTC.
        rests_on: the older files that hold pages of this crawl.
    """

    path: Path
    crawl_id: str
    category: Category
    finished_at: datetime
    is_complete: bool
    rests_on: frozenset[Path] = frozenset()


@dataclass(frozen=True, slots=True)
class KeptPage:
    """A page of a crawl: `page` as it came, but fetched when this crawl asked for it; it lies at `original`."""

    page: Page
    original: Place

    @property
    def name(self) -> str:
        """`<source>/<category>/<file>#<offset>`: see _warc.py how to look at it."""
        return f"{'/'.join(self.original.path.parts[-3:])}#{self.original.offset}"


@dataclass(slots=True)
class _Part:
    """What a crawl that did not end has left: its pages, as url -> (kind, where it lies), end before `size`."""

    crawl_id: str
    category: Category
    alive_at: datetime
    pages: dict[str, tuple[Kind, Place]] = field(default_factory=dict)
    size: int = 0


class PageArchive:
    """Keeps the pages of one crawl of one category as they come; a context manager. One at a time: see _lock.py.

    Leaving the block without `finish` leaves `<crawl_id>.warc.gz.part`, which nothing reads but the next archive of the
    category: it goes on with that file, and its `crawl_id`, unless it is of another address or older than
    `resume_within`.

    Attributes:
        resumed: the pages that were there already, as url -> (kind, where it lies).

    Raises:
        PermanentSourceError: a crawl of that id has ended before; other files may rest on it.
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        category: Category,
        crawl_id: str,
        resume_within: timedelta = RESUME_WITHIN,
    ) -> None:
        home = category_folder(folder, source, category.slug)
        if (home / f"{_safe(crawl_id)}{_SUFFIX}").exists():
            raise PermanentSourceError(str(home), f"has a crawl {crawl_id!r} already. Give each crawl its own id.")
        home.mkdir(parents=True, exist_ok=True)
        part = _taken_up(home, category, datetime.now(UTC) - resume_within)
        self.crawl_id = part.crawl_id if part else crawl_id
        self.path = home / f"{self.crawl_id}{_SUFFIX}"
        self.resumed = part.pages if part else {}
        self._rests_on = {place.path.name for _, place in self.resumed.values()} - {_part_of(self.path).name}
        self._file = _part_of(self.path).open("ab")
        self._file.truncate(part.size if part else 0)
        self._writer = RecordWriter(self._file)
        if not part:
            facts = {"software": "bookclub-platform", "isPartOf": crawl_id, "source": source, **asdict(category)}
            self._writer.write_warcinfo(self.path.name, facts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def append(self, page: Page) -> None:
        """Keep one page; it survives the end of this process."""
        self._writer.write_page(page)

    def append_revisit(self, page: Unchanged, original: Place, fetched_at: datetime) -> None:
        """Keep that the page is as it lies at `original` since `fetched_at`."""
        self._writer.write_revisit(page, original, fetched_at)
        self._rests_on.add(original.path.name)

    def finish(self, is_complete: bool) -> Path:
        """Close the file and give it its name."""
        summary = {"is_complete": is_complete, "rests_on": sorted(self._rests_on)}
        self._writer.write_metadata(f"urn:crawl:{self.crawl_id}", json.dumps(summary).encode())
        os.fsync(self._file.fileno())
        self._file.close()
        return _part_of(self.path).replace(self.path)


def latest(folder: Path, source: str, category: str) -> KeptCrawl | None:
    """The newest crawl of a category (slug) that ended, None if there is none. Crawl ids sort by time.

    Raises:
        PermanentSourceError: its file is damaged.
    """
    paths = _ended(folder, source, category)
    return kept_crawl(paths[0]) if paths else None


def last_pages(folder: Path, source: str, category: str) -> dict[str, tuple[Place, bool]]:
    """url -> (where the page lies, whether a crawl has found it good and asked for changes since).

    Of the newest complete crawl whose file can be read; empty if there is none.
    """
    for path in _ended(folder, source, category):
        try:
            if kept_crawl(path).is_complete:
                pages = (record for record in records(path) if record.type in _PAGES)
                return {record.url: (record.original, record.type == "revisit") for record in pages}
        except PermanentSourceError as error:
            _log.warning("%s: asked for changes since an older crawl instead", error)
    return {}


def read_pages(path: Path) -> Iterator[Page]:
    """As `read_kept_pages`, without where they lie."""
    return (kept.page for kept in read_kept_pages(path))


def read_kept_pages(path: Path) -> Iterator[KeptPage]:
    """The pages of a file, in the order in which they came.

    Raises:
        PermanentSourceError: the file is damaged, or one that it rests on is gone.
    """
    kind = None
    for record in records(path):
        kind = record.type
        if kind == "response":
            yield KeptPage(record.page(), record.place)
        elif kind == "revisit":
            page = replace(page_at(record.original), kind=record.kind, fetched_at=record.written_at)
            yield KeptPage(page, record.original)
    if kind != "metadata":
        raise PermanentSourceError(str(path), _NO_END)


def kept_crawl(path: Path) -> KeptCrawl:
    """What a file says of its crawl. Raises PermanentSourceError if it is damaged."""
    first = last = None
    for last in records(path):
        first = first or last
    if first is None or last is None or last.type != "metadata":
        raise PermanentSourceError(str(path), _NO_END)
    facts, summary = facts_of(first), json.loads(last.body())
    rests_on = frozenset(path.with_name(name) for name in summary.get("rests_on", []))
    return KeptCrawl(path, facts["isPartOf"], _category(facts), last.written_at, summary["is_complete"], rests_on)


def _taken_up(home: Path, category: Category, oldest: datetime) -> _Part | None:
    """The newest part that a crawl of `category` can go on with; the others are of no more use, and are removed."""
    found = None
    for path in sorted(home.glob(f"*{_SUFFIX}.part"), reverse=True):
        part = _part(path) if found is None else None
        if part and part.category == category and part.alive_at >= oldest:
            found = part
        else:
            _log.info("%s: given up, the crawl starts anew", path)
            path.unlink()
    return found


def _part(path: Path) -> _Part | None:
    """The records of a part that came whole; None if not even its first did."""
    part = None
    try:
        for record in records(path):
            if part is None:
                facts = facts_of(record)
                part = _Part(facts["isPartOf"], _category(facts), record.written_at)
            elif record.type not in _PAGES:
                break  # its end, written just before it was to get its name
            else:
                part.pages[record.url] = record.kind, record.original
                part.alive_at = record.written_at
            part.size = record.end
    except PermanentSourceError as error:
        _log.info("%s. Goes on before that.", error)
    return part


def _category(facts: dict[str, str]) -> Category:
    return Category(facts["slug"], facts["name"], facts["url"])


def _ended(folder: Path, source: str, category: str) -> list[Path]:
    """Newest first."""
    return sorted(category_folder(folder, source, category).glob(f"*{_SUFFIX}"), reverse=True)


def _part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def category_folder(folder: Path, source: str, category: str) -> Path:
    """Where the files of a category (slug) lie."""
    return folder / _safe(source) / _safe(category)


def _safe(name: str) -> str:
    """Names come from shops and callers, and become folders."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise PermanentSourceError(name, "cannot be the name of a file or folder")
    return name
