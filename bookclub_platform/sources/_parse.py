"""Pages -> RawBook or RejectedBook, in the order of the pages: in this process, and of a big crawl in one per core.

BeautifulSoup takes a millisecond a page and holds Python's lock, so threads are no help. A worker takes half a second
to start; how many pages come is not known before they are read; so workers start when as much has been spent without.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from bookclub_platform.core.book import Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.sources._contract import Page, Source

WITHOUT_WORKERS = 1000  # pages
MOST_WORKERS = 4  # this process reads and hands out a page in a quarter of the time in which one is parsed
_CHUNK = 100
Row = RawBook | RejectedBook


def parse_pages(source: Source, pages: Iterable[Page], category: Category) -> Iterator[Row]:
    """The books on each page, or why there are none.

    `pages` is read only a little ahead of what is yielded, so memory does not grow with their number. The source goes
    to the workers as a pickle.
    """
    rest = iter(pages)
    workers = _workers()
    yield from _parsed(source, category, itertools.islice(rest, WITHOUT_WORKERS if workers > 1 else None))
    following = list(itertools.islice(rest, 1))
    if following:
        yield from _parsed_by_workers(source, category, itertools.chain(following, rest), workers)


def _workers() -> int:
    """A daemonic process may have no children."""
    return 1 if multiprocessing.current_process().daemon else min(os.cpu_count() or 1, MOST_WORKERS)


def _parsed_by_workers(source: Source, category: Category, pages: Iterator[Page], workers: int) -> Iterator[Row]:
    # Spawned: a fork would copy the locks of the threads that Dagster and the Fetcher run.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    under_way: deque[Future[list[Row]]] = deque()
    try:
        while chunk := list(itertools.islice(pages, _CHUNK)):
            under_way.append(pool.submit(_chunk, source, category, chunk))
            if len(under_way) > 2 * workers:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _chunk(source: Source, category: Category, pages: list[Page]) -> list[Row]:
    return list(_parsed(source, category, pages))


def _parsed(source: Source, category: Category, pages: Iterable[Page]) -> Iterator[Row]:
    for page in pages:
        try:
            for row in source.rows(page, category):
                yield row if isinstance(row, RawBook) else _rejected(source, category, page, row.url, row.reason)
        except PageRejected as error:
            yield _rejected(source, category, page, page.url, error.reason)


def _rejected(source: Source, category: Category, page: Page, url: str, reason: str) -> RejectedBook:
    return RejectedBook(source.name, category.slug, url, reason, page.fetched_at)
