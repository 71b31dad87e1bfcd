"""What a source offers: Source -> Category -> Page -> RawBook, and the types on that way.

A source knows how its pages look and who fetches them, and nothing else: _crawl.py walks, _archive.py keeps. To the
walk a shop, a file and a web API are one thing: pages that link books and lead to the next page, and pages that hold
rows; a page may do both. A new kind is one new file beside this one, with
    Config          a model on _config.SourceConfig with `kind: Literal["<name of the file>"]` and its own fields
    build           (config: Config, settings) -> something that fits `Source`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, overload
from urllib.parse import urlsplit

from bookclub_platform.core.book import Category, RawBook

if TYPE_CHECKING:
    from bookclub_platform.sources._fetch import Counters

Kind = Literal["listing", "book", "cover"]
CHECK_ADDRESS = "Check that the shop is up and that sources.yaml (BOOKCLUB_SHOP_URL) has its address."
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Page:
    """One page as it came.

    Attributes:
        url: the address that answered, after redirects: links on the page are relative to it.
        headers: as received, in order; those that describe a content coding carry the prefix `X-Archive-Orig-`.
        body: bytes as received, without content coding (gzip).
        fetched_at: when the answer was complete, UTC.
    """

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    kind: Kind
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Validators:
    """What the shop said of a page when it last came, to be asked whether it has changed since (RFC 9110, 13.1)."""

    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The shop answered 304: the page is as it was when it last came. `headers` are those of the 304."""

    url: str
    headers: tuple[tuple[str, str], ...]
    kind: Kind
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page that could not be had, and why."""

    url: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What follows from a page.

    Attributes:
        book_urls: absolute, in the page's order, each once; none where the rows stand on the page itself.
        next_url: the next page of the same listing, None on the last.
        expected: how many books the source says that the whole listing has, None where it does not say.
        rows: how many rows the page itself holds, good and bad.
    """

    book_urls: tuple[str, ...]
    next_url: str | None
    expected: int | None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is no book: `url` leads to its place in the page, `reason` names the line."""

    url: str
    reason: str


class PageFetcher(Protocol):
    """What a source needs to find its categories."""

    def fetch(self, url: str, kind: Kind) -> Page:
        """The page. Raises SourceError."""


class CrawlFetcher(PageFetcher, Protocol):
    """What the walk needs: a Fetcher (HTTP), a browser, or a reader of local files.

    `validators` say what is known of a page: where it is still so, Unchanged may come instead of it. A browser always
    gives the page.
    """

    @overload
    def fetch(self, url: str, kind: Kind) -> Page: ...
    @overload
    def fetch(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged: ...
    def fetch(self, url: str, kind: Kind, validators: Validators | None = None) -> Page | Unchanged:
        """The page. Raises SourceError."""

    @overload
    def fetch_many(self, urls: Iterable[str], kind: Kind) -> Iterator[Page | FailedPage]: ...
    @overload
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None
    ) -> Iterator[Page | Unchanged | FailedPage]: ...
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None = None
    ) -> Iterator[Page | Unchanged | FailedPage]:
        """Each page as it comes. `urls` is read only a little ahead of what is yielded. Raises ShopUnavailable."""

    def counters(self) -> Counters:
        """What happened since the start."""


class Source(Protocol):
    """One entry of sources.yaml; it can be pickled.

    Attributes:
        name: the prefix of its assets and the column `source`.
        address: for people and as the border of the walk; without a trailing slash.
        has_categories: whether it is walked category by category. If not, `categories` names one that stands for the
            whole source, and each row brings its own.
    """

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def has_categories(self) -> bool: ...

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        """Who fetches its pages, as politely as sources.yaml says, for one crawl. Raises SourceError."""

    def categories(self, fetcher: PageFetcher) -> Sequence[Category]:
        """The categories that the source shows, in its order. Raises SourceError."""

    def listing(self, page: Page) -> Listing:
        """What follows from a page of kind "listing", the one at a category's `url` first. Raises PageRejected."""

    def rows(self, page: Page, category: Category) -> Iterable[RawBook | RejectedRow]:
        """The rows on a page, of either kind; a missing field is None. Raises PageRejected if it is not such a page."""


def has_same_host(url: str, other: str) -> bool:
    """Whether both are web addresses of one host and port; http and https on their usual ports are one."""
    ends = [_end(url), _end(other)]
    return None not in ends and ends[0] == ends[1]


def _end(url: str) -> tuple[str, int | None] | None:
    """(host, unusual port), None for what is no web address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.hostname, None if port == _DEFAULT_PORTS[parts.scheme] else port
