"""Category of a shop -> its pages in an archive -> RawBooks: the walk that every source shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bookclub_platform.core.book import Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError
from bookclub_platform.sources._archive import PageArchive, kept_crawl, read_pages
from bookclub_platform.sources._contract import CrawlFetcher, FailedPage, Kind, Listing, Page, Source, has_same_host
from bookclub_platform.sources._parse import parse_pages

OnPage = Callable[[Page | FailedPage], None]


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What one crawl of one category did.

    Attributes:
        category: slug.
        path: the archive with the pages that came.
        pages: pages kept, listing and book; `books`: book pages, and rows on pages that hold them.
        bytes: received, as on the wire.
        requests: sent, retries among them.
        statuses: HTTP status -> how often it came.
        failed: what could not be had, and why; empty if and only if `is_complete`.
    """

    crawl_id: str
    category: str
    path: Path
    pages: int
    books: int
    bytes: int
    requests: int
    retries: int
    statuses: dict[int, int]
    failed: list[FailedPage]
    seconds: float
    is_complete: bool


def crawl_category(
    source: Source,
    category: Category,
    fetcher: CrawlFetcher,
    folder: Path,
    crawl_id: str,
    on_page: OnPage | None = None,
) -> CrawlReport:
    """Fetch every page of a category and keep them below `folder`.

    Args:
        crawl_id: names the file; ids must sort by time, for the newest is the one that is read.
        on_page: told of each page as it comes or fails.

    Raises:
        ShopUnavailable: the shop is down or wants no visit; what came so far stays in a `.part` file.
    """
    started, before = time.monotonic(), fetcher.counters()
    with PageArchive(folder, source.name, category, crawl_id) as archive:
        walk = _Walk(source, category, fetcher, archive, on_page)
        for outcome in fetcher.fetch_many(walk.book_urls(), "book"):
            walk.take(outcome)
        path = archive.finish(is_complete=not walk.failed)
    spent = fetcher.counters() - before
    return CrawlReport(
        crawl_id=crawl_id,
        category=category.slug,
        path=path,
        pages=walk.pages,
        books=walk.books,
        bytes=spent.bytes,
        requests=spent.requests,
        retries=spent.retries,
        statuses=dict(spent.statuses),
        failed=walk.failed,
        seconds=time.monotonic() - started,
        is_complete=not walk.failed,
    )


class _Walk:
    def __init__(
        self, source: Source, category: Category, fetcher: CrawlFetcher, archive: PageArchive, on_page: OnPage | None
    ) -> None:
        self.source, self.category, self.fetcher = source, category, fetcher
        self.archive, self.on_page = archive, on_page
        self.pages = self.books = 0
        self.failed: list[FailedPage] = []

    def take(self, outcome: Page | FailedPage) -> None:
        if isinstance(outcome, FailedPage):
            self.failed.append(outcome)
        else:
            self.archive.append(outcome)
            self.pages += 1
            self.books += outcome.kind == "book"
        if self.on_page is not None:
            self.on_page(outcome)

    def book_urls(self) -> Iterator[str]:
        """From listing to listing; books of one are fetched while the next is asked for."""
        found: dict[str, None] = {}
        expected: int | None = None
        rows = 0
        for listing in self._listings():
            fresh = [url for url in listing.book_urls if url not in found]
            found.update(dict.fromkeys(fresh))
            rows += listing.rows
            self.books += listing.rows
            expected = listing.expected if listing.expected is not None else expected
            yield from (url for url in fresh if self._is_of_shop(url, "book"))
        if not self.failed and expected is not None and expected != len(found) + rows:
            reason = f"the listing says {expected} books and links {len(found) + rows}"
            self.take(FailedPage(self.category.url, "listing", reason))

    def _listings(self) -> Iterator[Listing]:
        url: str | None = self.category.url
        seen: set[str] = set()
        while url is not None and self._is_of_shop(url, "listing"):
            if url in seen:
                return self.take(FailedPage(url, "listing", "the listing's pages lead in a circle"))
            seen.add(url)
            try:
                page = self.fetcher.fetch(url, "listing")
                self.take(page)
                listing = self.source.listing(page)
            except ShopUnavailable:
                raise
            except SourceError as error:
                return self.take(FailedPage(url, "listing", error.reason))
            yield listing
            url = listing.next_url

    def _is_of_shop(self, url: str, kind: Kind) -> bool:
        if url == self.source.address or has_same_host(url, self.source.address):
            return True
        self.take(FailedPage(url, kind, "is linked by the shop, but leads away from it"))
        return False


def read_raw_books(source: Source, category: str, path: Path) -> tuple[list[RawBook], list[RejectedBook]]:
    """The books on the kept pages of one crawl, and the pages that are no book pages, with the reason.

    Args:
        category: slug; the file must be of that category.

    Raises:
        PermanentSourceError: the file is damaged, or of another category.
    """
    kept = kept_crawl(path)
    if kept.category.slug != category:
        raise PermanentSourceError(str(path), f"holds category {kept.category.slug!r}, not {category!r}")
    books: list[RawBook] = []
    rejected: list[RejectedBook] = []
    for row in parse_pages(source, read_pages(path), kept.category):
        if isinstance(row, RawBook):
            books.append(row)
        else:
            rejected.append(row)
    return books, rejected
