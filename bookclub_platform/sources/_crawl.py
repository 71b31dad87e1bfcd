"""Category of a shop -> its pages in an archive -> RawBooks: the walk that every source shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path

from bookclub_platform.core.book import Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError
from bookclub_platform.sources._archive import (
    RESUME_WITHIN,
    PageArchive,
    category_folder,
    kept_crawl,
    last_pages,
    read_kept_pages,
)
from bookclub_platform.sources._contract import (
    CrawlFetcher,
    FailedPage,
    Kind,
    Listing,
    Page,
    Source,
    Unchanged,
    Validators,
    has_same_host,
)
from bookclub_platform.sources._lock import only_crawl
from bookclub_platform.sources._parse import parse_pages
from bookclub_platform.sources._warc import Place, page_at

OnPage = Callable[[Page | Unchanged | FailedPage], None]

MAX_PAGES = 200_000
MOST_GIVEN_UP = 5
_BARREN_LISTINGS = 3
# By RFC 9110 (8.8.2.2), a date proves little about a page modified in the same second; clocks differ by more than that.
_SETTLED = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class CrawlReport:
    """What one crawl of one category did.

    Attributes:
        crawl_id: the given one, or that of the killed crawl which this one has finished.
        category: slug.
        path: the archive with the received pages.
        pages: pages stored, listing and book; `books`: book pages, and rows on pages that hold them.
        unchanged: of `pages`, those of which the shop had no new version (304).
        resumed: of `pages`, those that the killed crawl had already stored.
        bytes: received, as on the wire.
        requests: sent, including retries.
        statuses: HTTP status -> how often it was received.
        failed: what could not be fetched, and why; empty if and only if `is_complete`.
        timings: (seconds since the start, seconds until the response was complete, status or 0) of each request, or of
            the last MOST_TIMINGS.
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
    unchanged: int = 0
    resumed: int = 0
    timings: list[tuple[float, float, int]] = field(default_factory=list)


def crawl_category(
    source: Source,
    category: Category,
    fetcher: CrawlFetcher,
    folder: Path,
    crawl_id: str,
    on_page: OnPage | None = None,
    *,
    max_pages: int = MAX_PAGES,
    wait_s: float = 60.0,
    resume_within: timedelta = RESUME_WITHIN,
) -> CrawlReport:
    """Fetch every page of a category and store them below `folder`.

    A page is downloaded only if it has changed since the last complete crawl, and not requested at all if a crawl that
    was killed within `resume_within` has stored it.

    Args:
        crawl_id: names the file; ids must sort by time, because the newest file is read.
        on_page: called with each page as it arrives or fails.
        max_pages: listing and book pages; a crawl of a category that has more is not complete.
        wait_s: how long to wait for another crawl of the category.

    Raises:
        CrawlUnderWay: another crawl of the category did not end within `wait_s`.
        ShopUnavailable: the shop is down or refuses visits; what was received so far is kept for the next crawl.
    """
    started, before = time.monotonic(), fetcher.counters()
    with (
        only_crawl(category_folder(folder, source.name, category.slug), crawl_id, wait_s),
        PageArchive(folder, source.name, category, crawl_id, resume_within) as archive,
    ):
        known = _Known(source, category, last_pages(folder, source.name, category.slug))
        walk = _Walk(source, category, fetcher, archive, known, on_page, max_pages)
        for outcome in fetcher.fetch_many(walk.book_urls(), "book", known.validators):
            walk.take(outcome)
        path = archive.finish(is_complete=not walk.failed)
    spent = fetcher.counters() - before
    return CrawlReport(
        crawl_id=archive.crawl_id,
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
        unchanged=walk.unchanged,
        resumed=len(archive.resumed),
        timings=[(at - started, latency_s, status) for at, latency_s, status in spent.timings],
    )


def crawl_categories(
    source: Source, wanted: Iterable[Category], fetcher: CrawlFetcher, folder: Path, crawl_id: str
) -> Iterator[tuple[Category, CrawlReport | ShopUnavailable]]:
    """`crawl_category` for one category after the other. If the shop is up but cannot deliver the pages of a category,
    this yields the error and goes on with the others; what was received is kept for the next crawl.

    Raises:
        ShopUnavailable: the shop as a whole is down, or more than MOST_GIVEN_UP of its categories are.
        CrawlUnderWay: see `crawl_category`.
    """
    given_up = 0
    with ExitStack() as stack:
        for category in wanted:
            try:
                yield category, crawl_category(source, category, fetcher, folder, crawl_id)
            except ShopUnavailable as error:
                given_up += 1
                if given_up > MOST_GIVEN_UP:
                    raise
                fetcher = stack.enter_context(source.fetcher())  # the previous one has given up the shop for good
                source.categories(fetcher)
                yield category, error


class _Known:
    """The pages of the last complete crawl, and those among them that were requested conditionally."""

    def __init__(self, source: Source, category: Category, places: dict[str, tuple[Place, bool]]) -> None:
        self.source, self.category, self.places = source, category, places
        self.asked: dict[str, tuple[Place, Page]] = {}

    def validators(self, url: str, kind: Kind = "book") -> Validators | None:
        """The validators for a conditional request; None if our copy is unusable and the page must be downloaded."""
        if url not in self.places:
            return None
        place, is_checked = self.places[url]
        try:
            page = page_at(place)
            if not is_checked:
                self._check(page, kind)
        except PermanentSourceError:
            return None
        validators = _validators(page)
        if validators is not None:
            # Without its body: a category of 100,000 books must fit into memory.
            self.asked[url] = place, replace(page, body=b"")
        return validators

    def _check(self, page: Page, kind: Kind) -> None:
        """Raise PageRejected if our copy of the page is bad: a 304 would then keep it forever."""
        if kind == "book":
            list(self.source.rows(page, self.category))
        else:
            self.source.listing(page)


def _validators(page: Page) -> Validators | None:
    """An ETag identifies exactly this page. A date alone does not, if the page was generated on request: one with an
    error text would have a newer date than the page that it replaced, and then count as "not modified since"."""
    headers = {name.lower(): value for name, value in page.headers}
    etag, modified = headers.get("etag"), headers.get("last-modified")
    if etag is None and (modified is None or not _is_settled(modified, page)):
        return None
    return Validators(etag, modified)


def _is_settled(modified: str, page: Page) -> bool:
    try:
        return parsedate_to_datetime(modified) <= page.fetched_at - _SETTLED
    except (ValueError, TypeError, OverflowError):  # no date, or one without a time zone, or of the year 10^20
        return False


class _Walk:
    def __init__(
        self,
        source: Source,
        category: Category,
        fetcher: CrawlFetcher,
        archive: PageArchive,
        known: _Known,
        on_page: OnPage | None,
        max_pages: int,
    ) -> None:
        self.source, self.category, self.fetcher = source, category, fetcher
        self.archive, self.known, self.on_page, self.max_pages = archive, known, on_page, max_pages
        kinds = [kind for kind, _ in archive.resumed.values()]
        self.pages, self.books, self.unchanged = len(kinds), kinds.count("book"), 0
        self.failed: list[FailedPage] = []

    def take(self, outcome: Page | Unchanged | FailedPage) -> None:
        if isinstance(outcome, Unchanged):
            try:
                outcome = self._trusted(outcome)
            except ShopUnavailable:
                raise
            except SourceError as error:
                outcome = FailedPage(outcome.url, outcome.kind, error.reason)
        if isinstance(outcome, FailedPage):
            self.failed.append(outcome)
        elif outcome.url not in self.archive.resumed:  # else: another redirect led to it again
            self._keep(outcome)
        if self.on_page is not None:
            self.on_page(outcome)

    def _trusted(self, outcome: Page | Unchanged) -> Page | Unchanged:
        """Download the page if a redirect led to a 304 for a page that we do not have."""
        if isinstance(outcome, Unchanged) and outcome.url not in self.known.asked:
            return self.fetcher.fetch(outcome.url, outcome.kind)
        return outcome

    def _keep(self, outcome: Page | Unchanged) -> None:
        if isinstance(outcome, Unchanged):
            place, page = self.known.asked[outcome.url]
            self.archive.append_revisit(outcome, place, page.fetched_at)
            self.unchanged += 1
        else:
            self.archive.append(outcome)
        self.pages += 1
        self.books += outcome.kind == "book"

    def book_urls(self) -> Iterator[str]:
        """Walk from listing to listing; the books of one are fetched while the next is requested."""
        found: dict[str, None] = {}
        expected: int | None = None
        barren = rows = 0
        for listings, listing in enumerate(self._listings(), 1):
            fresh = [url for url in listing.book_urls if url not in found]
            found.update(dict.fromkeys(fresh))
            rows += listing.rows
            self.books += listing.rows
            expected = listing.expected if listing.expected is not None else expected
            barren = 0 if fresh or listing.rows else barren + 1
            yield from (url for url in fresh if self._is_of_shop(url, "book") and url not in self.archive.resumed)
            if barren == _BARREN_LISTINGS and listing.next_url is not None:
                return self._end(f"{barren} listing pages one after the other bring no new book, and there are more")
            if listings + len(found) >= self.max_pages and listing.next_url is not None:
                return self._end(f"the category has more than {self.max_pages} pages, which is the limit")
        if not self.failed and expected is not None and expected != len(found) + rows:
            self._end(f"the listing says {expected} books and links {len(found) + rows}")
        return None

    def _end(self, reason: str) -> None:
        self.take(FailedPage(self.category.url, "listing", reason))

    def _listings(self) -> Iterator[Listing]:
        url: str | None = self.category.url
        seen: set[str] = set()
        while url is not None and self._is_of_shop(url, "listing"):
            try:
                page = self._listing_page(url) if url not in seen else None
                if page is None or (page.url != url and page.url in seen):
                    return self.take(FailedPage(url, "listing", "the listing's pages lead in a circle"))
                seen |= {url, page.url}
                listing = self.source.listing(page)
            except ShopUnavailable:
                raise
            except SourceError as error:
                return self.take(FailedPage(url, "listing", error.reason))
            yield listing
            url = listing.next_url
        return None

    def _listing_page(self, url: str) -> Page:
        """From the killed crawl, else from the shop, or from the last crawl if the shop says that it is unchanged."""
        if url in self.archive.resumed:
            return page_at(self.archive.resumed[url][1])
        outcome = self._trusted(self.fetcher.fetch(url, "listing", self.known.validators(url, "listing")))
        self.take(outcome)
        return outcome if isinstance(outcome, Page) else page_at(self.known.asked[outcome.url][0])

    def _is_of_shop(self, url: str, kind: Kind) -> bool:
        if url == self.source.address or has_same_host(url, self.source.address):
            return True
        self.take(FailedPage(url, kind, "is linked by the shop, but leads away from it"))
        return False


def iter_raw_books(source: Source, category: str, path: Path) -> Iterator[RawBook | RejectedBook]:
    """The books on the stored pages of one crawl, in the order of the pages, and the rejects with their reasons.

    Yields one at a time: a category of 100,000 books takes no more memory than one of 1,000.

    Args:
        category: slug; the file must be of that category.

    Raises:
        PermanentSourceError: the file is damaged, or of another category.
    """
    crawl = kept_crawl(path)
    if crawl.category.slug != category:
        raise PermanentSourceError(str(path), f"holds category {crawl.category.slug!r}, not {category!r}")
    yield from parse_pages(source, read_kept_pages(path), crawl.category)


def read_raw_books(source: Source, category: str, path: Path) -> tuple[list[RawBook], list[RejectedBook]]:
    """`iter_raw_books`, split into books and rejects."""
    books: list[RawBook] = []
    rejected: list[RejectedBook] = []
    for row in iter_raw_books(source, category, path):
        if isinstance(row, RawBook):
            books.append(row)
        else:
            rejected.append(row)
    return books, rejected
