"""Shop's address -> one whole crawl by the platform -> one line of JSON on stdout. Started by crawl.py, once per crawl.

Timed: listing the categories, fetching every page into WARC files, reading them back and checking them, every RawBook.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from _figures import FIELDS, Digest, Stopwatch

from bookclub_platform.core.book import RejectedBook
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources import Fetcher, crawl_category, iter_raw_books, sources


def main(address: str, concurrency: int) -> None:
    shop = next(shop for shop in sources(Settings(shop_url=address)) if shop.name == "books_toscrape")
    rows = Digest()
    with (
        tempfile.TemporaryDirectory() as folder,
        Stopwatch() as watch,
        Fetcher(delay_s=0, concurrency=concurrency) as fetcher,
    ):
        for category in shop.categories(fetcher):
            report = crawl_category(shop, category, fetcher, Path(folder), "20250101T000000Z")
            if not report.is_complete:
                sys.exit(f"{category.slug}: {report.failed}")
            for row in iter_raw_books(shop, category.slug, report.path):
                if isinstance(row, RejectedBook):
                    sys.exit(f"{row.url}: {row.reason}")
                rows.add({name: getattr(row, name) for name in FIELDS})
    watch.report(rows)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
