"""Shop -> pages -> rows -> table `books` of some categories, in a process of its own that a test may kill.

python -m bookclub_platform_tests.whole_walk <shop> <folder> <database> <crawl id> [category ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

import sqlalchemy as sa

from bookclub_platform.cleaning import clean
from bookclub_platform.core.loads import LoadResult, load_category
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources import CrawlReport, Fetcher, Source, crawl_category, latest, read_raw_books, sources

CONCURRENCY = 4


def shop_at(address: str) -> Source:
    (shop,) = sources(Settings(shop_url=address))
    return shop


def walked(
    address: str, folder: Path, database: str, crawl_id: str, slugs: list[str]
) -> list[tuple[CrawlReport, LoadResult]]:
    """Every category among `slugs` (none: all of the shop), one after the other, as the assets do it."""
    shop, engine, results = shop_at(address), sa.create_engine(database), []
    with Fetcher(delay_s=0, concurrency=CONCURRENCY) as fetcher:
        for category in shop.categories(fetcher):
            if slugs and category.slug not in slugs:
                continue
            report = crawl_category(shop, category, fetcher, folder, crawl_id)
            results.append((report, loaded(shop, category.slug, folder, engine)))
    engine.dispose()
    return results


def loaded(shop: Source, slug: str, folder: Path, engine: sa.Engine) -> LoadResult:
    crawl = latest(folder, shop.name, slug)
    assert crawl is not None
    raw_books, unreadable = read_raw_books(shop, slug, crawl.path)
    cleaned = clean(raw_books)
    rejected = [*unreadable, *cleaned.rejected]
    with engine.begin() as connection:
        return load_category(
            connection, shop.name, slug, crawl.crawl_id, cleaned.books, rejected, crawl.finished_at, crawl.is_complete
        )


if __name__ == "__main__":
    shop_url, folder_name, database_address, crawl, *chosen = sys.argv[1:]
    walked(shop_url, Path(folder_name), database_address, crawl, chosen)
