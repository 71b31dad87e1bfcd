"""Pages -> RawBook or RejectedBook, in the order of the pages: in this process, or for a big crawl in one per core.

BeautifulSoup takes a millisecond per page and holds the GIL, so threads do not help. A worker process takes half a
second to start, and the number of pages is unknown until they are read. So workers start only after about as much time
has been spent without them.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace

from bookclub_platform.core.book import LONGEST_KEY, Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.core.rules import shortened
from bookclub_platform.sources._archive import KeptPage
from bookclub_platform.sources._contract import Source

WITHOUT_WORKERS = 1000  # pages
MOST_WORKERS = 4  # this process reads and hands out a page in a quarter of the time that parsing one takes
_CHUNK = 20  # pages; some 5 chunks are in progress at once, with the bodies of their pages
Row = RawBook | RejectedBook


def parse_pages(source: Source, pages: Iterable[KeptPage], category: Category) -> Iterator[Row]:
    """The books on each page, or why there are none.

    `pages` is read only a little ahead of what is yielded, so memory does not grow with their number. The source is
    pickled for the workers.
    """
    rest = iter(pages)
    workers = _workers()
    yield from _parsed(source, category, itertools.islice(rest, WITHOUT_WORKERS if workers > 1 else None))
    following = list(itertools.islice(rest, 1))
    if following:
        yield from _parsed_by_workers(source, category, itertools.chain(following, rest), workers)


def _workers() -> int:
    """The number of workers; 1 in a daemonic process, which may not have children."""
    return 1 if multiprocessing.current_process().daemon else min(os.cpu_count() or 1, MOST_WORKERS)


def _parsed_by_workers(source: Source, category: Category, pages: Iterator[KeptPage], workers: int) -> Iterator[Row]:
    # Spawn, not fork, which would copy the locks of Dagster's and the Fetcher's threads.
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


def _chunk(source: Source, category: Category, pages: list[KeptPage]) -> list[Row]:
    return list(_parsed(source, category, pages))


def _parsed(source: Source, category: Category, pages: Iterable[KeptPage]) -> Iterator[Row]:
    for kept in pages:
        try:
            for row in source.rows(kept.page, category):
                if isinstance(row, RawBook):
                    yield replace(row, raw_page=kept.name)
                else:
                    yield _rejected(source, category, kept, row.url, row.reason)
        except PageRejected as error:
            yield _rejected(source, category, kept, kept.page.url, error.reason)


def _rejected(source: Source, category: Category, kept: KeptPage, url: str, reason: str) -> RejectedBook:
    where = source.name, category.slug, shortened(url, LONGEST_KEY)
    return RejectedBook(*where, reason, kept.page.fetched_at, kept.name)
