"""What a source offers: shop -> Category -> listing Page -> book Page -> RawBook, and the types on that way.

A source knows how its pages look and nothing else: fetching is _fetch.py, keeping is _archive.py, and _crawl.py walks.
A new kind of source is one new file beside this one, with a class that fits `Source` and a function
`from_settings(settings) -> Source`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

from bookclub_platform.core.book import Category, RawBook

Kind = Literal["listing", "book", "cover"]
CHECK_ADDRESS = "Check that the shop is up and that BOOKCLUB_SHOP_URL is its address."
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
    """What a listing page says.

    Attributes:
        book_urls: absolute, in the page's order, each once.
        next_url: the next page of the same listing, None on the last.
        expected: how many books the shop says that the whole listing has, None where it does not say.
    """

    book_urls: tuple[str, ...]
    next_url: str | None
    expected: int | None


class PageFetcher(Protocol):
    """What a source needs of a Fetcher."""

    def fetch(self, url: str, kind: Kind) -> Page:
        """The page. Raises SourceError."""


class Source(Protocol):
    """One shop. `name` is the prefix of its assets and the column `source`; `address` has no trailing slash."""

    name: str
    address: str

    def categories(self, fetcher: PageFetcher) -> Sequence[Category]:
        """The categories that the shop shows, in its order. Raises SourceError."""

    def listing(self, page: Page) -> Listing:
        """What a listing page says. Raises PageRejected."""

    def parse(self, page: Page, category: Category) -> RawBook:
        """The book on its page. Raises PageRejected if it is no book page; a missing field is None."""


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
