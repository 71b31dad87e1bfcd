"""Shop -> pages -> raw rows: the public face of the sources. One file in this folder = one kind of shop.

    from bookclub_platform.sources import Fetcher, crawl_category, latest, read_raw_books, sources

    shop = sources(settings)[0]
    with Fetcher(delay_s=settings.delay_s, concurrency=settings.crawl_concurrency) as fetcher:
        for category in shop.categories(fetcher):
            report = crawl_category(shop, category, fetcher, folder, crawl_id)
            raw_books, rejected = read_raw_books(shop, category.slug, report.path)

A new kind of shop is one new file here: a class that fits _contract.Source, and `from_settings(settings) -> Source`.
"""

from __future__ import annotations

import importlib
import pkgutil

from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._archive import KeptCrawl, PageArchive, latest, read_pages
from bookclub_platform.sources._contract import FailedPage, Kind, Listing, Page, PageFetcher, Source
from bookclub_platform.sources._covers import CoverReport, collect_covers
from bookclub_platform.sources._crawl import CrawlReport, crawl_category, read_raw_books
from bookclub_platform.sources._fetch import Counters, is_retryable
from bookclub_platform.sources._fetcher import Fetcher
from bookclub_platform.sources._politeness import Patience

__all__ = [
    "Counters",
    "CoverReport",
    "CrawlReport",
    "FailedPage",
    "Fetcher",
    "KeptCrawl",
    "Kind",
    "Listing",
    "Page",
    "PageArchive",
    "PageFetcher",
    "Patience",
    "Source",
    "collect_covers",
    "crawl_category",
    "is_retryable",
    "latest",
    "read_pages",
    "read_raw_books",
    "sources",
]


def sources(settings: Settings) -> list[Source]:
    """Every shop that the platform collects, in order of its file's name; files that start with _ are the frame."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return [importlib.import_module(f"{__name__}.{name}").from_settings(settings) for name in names]
