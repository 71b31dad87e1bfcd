"""Page -> `<folder>/<source>/<category>/<crawl_id>.warc.gz` -> Page: the pages of one crawl of one category.

A file begins with a warcinfo record (which category this is) and ends with a metadata record (whether every page was
received, and which older files it refers to). While it grows it has the suffix `.part`, so that a killed crawl is never
taken for a finished one; the next crawl of the category resumes it.

A page that has not changed since the last complete crawl is stored as a revisit record, which names the file and offset
of the page itself, never of another revisit, so that references are only one step deep. Whoever deletes old files must
keep those in `KeptCrawl.rests_on` of the files that stay.
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
from bookclub_platform.core.clock import MAX_AHEAD, is_ahead
from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources._contract import Kind, Page, Unchanged
from bookclub_platform.sources._warc import Place, RecordWriter, facts_of, page_at, records

_SUFFIX = ".warc.gz"
_PAGES = {"response", "revisit"}
_NO_END = "ends before the crawl's end. Crawl it again."
# A crawl killed at night is resumed in the morning. One of yesterday is not: crawls are daily, and it would mix the
# prices of two days.
RESUME_WITHIN = timedelta(hours=12)
ID_TIME = "%Y%m%dT%H%M%S.%fZ"  # the beginning of a crawl's id, in UTC

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCrawl:
    """One finished crawl of one category.

    Attributes:
        is_complete: every page that the shop lists was received; if not, the file has those that were.
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
    """A page of a crawl: `page` as received, with the time at which this crawl requested it; stored at `original`."""

    page: Page
    original: Place

    @property
    def name(self) -> str:
        """`<source>/<category>/<file>#<offset>`: _warc.py shows how to view it."""
        return f"{'/'.join(self.original.path.parts[-3:])}#{self.original.offset}"


@dataclass(slots=True)
class _Part:
    """The remains of an unfinished crawl: its pages, as url -> (kind, place), which all end before `size`."""

    crawl_id: str
    category: Category
    alive_at: datetime
    pages: dict[str, tuple[Kind, Place]] = field(default_factory=dict)
    size: int = 0


class PageArchive:
    """Stores the pages of one crawl of one category as they arrive; a context manager. One at a time: see _lock.py.

    Leaving the block without `finish` leaves `<crawl_id>.warc.gz.part`, which only the next archive of the category
    reads: it continues that file, with its `crawl_id`, unless it is of another address or older than `resume_within`.

    Attributes:
        resumed: the pages that were already there, as url -> (kind, place).

    Raises:
        PermanentSourceError: there is a finished crawl of that id; other files may refer to it.
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
        part = _taken_up(home, category, resume_within)
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
        """Store one page; it survives the end of this process."""
        self._writer.write_page(page)

    def append_revisit(self, page: Unchanged, original: Place, fetched_at: datetime) -> None:
        """Record that the page is unchanged: as stored at `original`, where it was fetched at `fetched_at`."""
        self._writer.write_revisit(page, original, fetched_at)
        self._rests_on.add(original.path.name)

    def finish(self, is_complete: bool) -> Path:
        """Close the file and give it its final name."""
        summary = {"is_complete": is_complete, "rests_on": sorted(self._rests_on)}
        self._writer.write_metadata(f"urn:crawl:{self.crawl_id}", json.dumps(summary).encode())
        os.fsync(self._file.fileno())
        self._file.close()
        return _part_of(self.path).replace(self.path)


def has_pages(folder: Path, source: str, category: str) -> bool:
    """Whether a crawl of the category (slug) has finished; its file may be damaged."""
    return bool(_ended(folder, source, category))


def latest(folder: Path, source: str, category: str) -> KeptCrawl | None:
    """The newest finished crawl of a category (slug), None if there is none. Crawl ids sort by time.

    Raises:
        PermanentSourceError: its file is damaged.
    """
    paths = _ended(folder, source, category)
    return kept_crawl(paths[0]) if paths else None


def future_crawls(folder: Path, source: str, now: datetime) -> list[Path]:
    """The finished crawls of a source that a clock which was ahead has named: until then, each is the latest of its
    category, whatever comes."""
    found = (folder / _safe(source)).glob(f"*/*{_SUFFIX}")
    return sorted(path for path in found if path.name > f"{now + MAX_AHEAD:{ID_TIME}}")


def last_pages(folder: Path, source: str, category: str) -> dict[str, tuple[Place, bool]]:
    """url -> (place of the page, whether a later crawl has already found it good and requested only changes).

    From the newest complete crawl whose file can be read; empty if there is none.
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
    """Like `read_kept_pages`, without the places."""
    return (kept.page for kept in read_kept_pages(path))


def read_kept_pages(path: Path) -> Iterator[KeptPage]:
    """The pages of a file, in the order in which they arrived.

    Raises:
        PermanentSourceError: the file is damaged, or one that it refers to is gone.
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
    """The facts of a file about its crawl. Raises PermanentSourceError if it is damaged."""
    first = last = None
    for last in records(path):
        first = first or last
    if first is None or last is None or last.type != "metadata":
        raise PermanentSourceError(str(path), _NO_END)
    facts, summary = facts_of(first), json.loads(last.body())
    rests_on = frozenset(path.with_name(name) for name in summary.get("rests_on", []))
    return KeptCrawl(path, facts["isPartOf"], _category(facts), last.written_at, summary["is_complete"], rests_on)


def _taken_up(home: Path, category: Category, resume_within: timedelta) -> _Part | None:
    """The newest part that a crawl of `category` can resume; all others are useless and get deleted."""
    found, now = None, datetime.now(UTC)
    for path in sorted(home.glob(f"*{_SUFFIX}.part"), reverse=True):
        part = _part(path) if found is None else None
        is_fresh = part is not None and part.alive_at >= now - resume_within and not is_ahead(part.alive_at, now)
        if part is not None and part.category == category and is_fresh:
            found = part
        else:
            _log.info("%s: given up, the crawl starts anew", path)
            path.unlink()
    return found


def _part(path: Path) -> _Part | None:
    """The complete records of a part; None if not even the first is complete."""
    part = None
    try:
        for record in records(path):
            if part is None:
                facts = facts_of(record)
                part = _Part(facts["isPartOf"], _category(facts), record.written_at)
            elif record.type not in _PAGES:
                break  # the last record, written just before the file would have got its final name
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
    """The folder for the files of a category (slug)."""
    return folder / _safe(source) / _safe(category)


def _safe(name: str) -> str:
    """Check a name, which comes from a shop or a caller, before it becomes a file or folder name."""
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise PermanentSourceError(name, "cannot be the name of a file or folder")
    return name
