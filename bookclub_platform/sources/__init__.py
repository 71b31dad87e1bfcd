"""sources.yaml -> pages -> raw rows: the public interface of the sources. One file in this folder = one kind of source.

    from bookclub_platform.sources import crawl_category, read_raw_books, sources

    for source in sources(settings):
        with source.fetcher() as fetcher:
            for category in source.categories(fetcher):
                report = crawl_category(source, category, fetcher, folder, crawl_id)
                raw_books, rejected = read_raw_books(source, category.slug, report.path)

A new source is an entry in sources.yaml. A new kind is one new file here: see _contract.py.
"""

from __future__ import annotations

from bookclub_platform.sources._archive import (
    ID_TIME,
    KeptCrawl,
    KeptPage,
    PageArchive,
    future_crawls,
    has_pages,
    latest,
    read_kept_pages,
    read_pages,
)
from bookclub_platform.sources._contract import (
    CrawlFetcher,
    FailedPage,
    Kind,
    Listing,
    Page,
    PageFetcher,
    RejectedRow,
    Source,
    Unchanged,
    Validators,
)
from bookclub_platform.sources._covers import CoverReport, collect_covers
from bookclub_platform.sources._crawl import (
    CrawlReport,
    crawl_categories,
    crawl_category,
    iter_raw_books,
    read_raw_books,
)
from bookclub_platform.sources._fetch import Counters, is_retryable
from bookclub_platform.sources._fetcher import Fetcher
from bookclub_platform.sources._kinds import BrokenSource, faults, schema, sources, sources_file
from bookclub_platform.sources._politeness import Patience

__all__ = [
    "ID_TIME",
    "BrokenSource",
    "Counters",
    "CoverReport",
    "CrawlFetcher",
    "CrawlReport",
    "FailedPage",
    "Fetcher",
    "KeptCrawl",
    "KeptPage",
    "Kind",
    "Listing",
    "Page",
    "PageArchive",
    "PageFetcher",
    "Patience",
    "RejectedRow",
    "Source",
    "Unchanged",
    "Validators",
    "collect_covers",
    "crawl_categories",
    "crawl_category",
    "faults",
    "future_crawls",
    "has_pages",
    "is_retryable",
    "iter_raw_books",
    "latest",
    "read_kept_pages",
    "read_pages",
    "read_raw_books",
    "schema",
    "sources",
    "sources_file",
]
