"""The interface of a source: Source -> Category -> Page -> RawBook, and the types in between.

A source only knows what its pages look like and which fetcher gets them: _crawl.py walks through the pages, _archive.py
stores them. To the walk, a shop, a file and a web API are the same: pages that link to books and to the next page, and
pages that hold rows; a page may do both. A new kind is one new file next to this one, with
    Config          a subclass of _config.SourceConfig with `kind: Literal["<name of the file>"]` and its own fields
    build           (config: Config, settings) -> an implementation of `Source`
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
    """One page as received.

    Attributes:
        url: the final address, after redirects: links on the page are relative to it.
        headers: as received, in order; those that describe a content coding have the prefix `X-Archive-Orig-`.
        body: bytes as received, with the content coding (gzip) removed.
        fetched_at: when the response was complete, UTC.
    """

    url: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    kind: Kind
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class Validators:
    """Validators from the last response for a page, for a conditional request (RFC 9110, 13.1)."""

    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The shop responded with 304: the page has not changed since the last response. `headers` are those of the 304."""

    url: str
    headers: tuple[tuple[str, str], ...]
    kind: Kind
    fetched_at: datetime


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page that could not be fetched, and why."""

    url: str
    kind: Kind
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a page leads to.

    Attributes:
        book_urls: absolute, in the page's order, each once; none if the rows are on the page itself.
        next_url: the next page of the same listing, None on the last.
        expected: how many books the whole listing has according to the source, None if it does not say.
        rows: how many rows the page itself holds, good and bad.
    """

    book_urls: tuple[str, ...]
    next_url: str | None
    expected: int | None
    rows: int = 0


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that is not a book: `url` points to its place in the page, `reason` names the line."""

    url: str
    reason: str


class PageFetcher(Protocol):
    """What a source needs to find its categories."""

    def fetch(self, url: str, kind: Kind) -> Page:
        """The page. Raises SourceError."""


class CrawlFetcher(PageFetcher, Protocol):
    """What the walk needs: a Fetcher (HTTP), a browser, or a reader of local files.

    `validators` make a request conditional: if the page has not changed, the result may be Unchanged instead of the
    page. A browser always returns the page.
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
        """Each page as it arrives. `urls` is read only a little ahead of what is yielded. Raises ShopUnavailable."""

    def counters(self) -> Counters:
        """The counters since the start."""


class Source(Protocol):
    """One entry of sources.yaml; it can be pickled.

    Attributes:
        name: the prefix of its assets and the value of the column `source`.
        address: for people, and as the boundary of the walk; without a trailing slash.
        has_categories: whether it is crawled category by category. If not, `categories` returns one that stands for the
            whole source, and each row has its own.
    """

    @property
    def name(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def has_categories(self) -> bool: ...

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        """The fetcher for its pages, as polite as sources.yaml requires, for one crawl. Raises SourceError."""

    def cover_fetcher(self) -> AbstractContextManager[PageFetcher] | None:
        """The fetcher for the cover images in its rows, over HTTP; None for a local file. Raises SourceError."""

    def categories(self, fetcher: PageFetcher) -> Sequence[Category]:
        """The categories that the source lists, in its order. Raises SourceError."""

    def listing(self, page: Page) -> Listing:
        """What a page of kind "listing" leads to, first the one at a category's `url`. Raises PageRejected."""

    def rows(self, page: Page, category: Category) -> Iterable[RawBook | RejectedRow]:
        """The rows on a page of either kind; a missing field is None. Raises PageRejected if it is not such a page."""


def has_same_host(url: str, other: str) -> bool:
    """Whether both are web addresses with the same host and port; http and https on default ports count as the same."""
    ends = [_end(url), _end(other)]
    return None not in ends and ends[0] == ends[1]


def _end(url: str) -> tuple[str, int | None] | None:
    """(host, port if it is not the default), None if `url` is not a web address."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    return parts.hostname, None if port == _DEFAULT_PORTS[parts.scheme] else port
