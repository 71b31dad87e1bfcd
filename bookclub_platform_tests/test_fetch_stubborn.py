"""A shop of which three answers in ten are trouble gives every book, and no page is asked for more often than agreed.

At full size, by hand: `python -m bookclub_platform_tests.test_fetch_stubborn 1000 1` (books, seed) with the timeouts
and pauses that crawls have.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest

from bookclub_platform.core.errors import ShopUnavailable
from bookclub_platform.core.settings import Settings
from bookclub_platform.sandbox import generate
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sources import Fetcher, Patience, crawl_category, read_raw_books, sources
from bookclub_platform_tests.misbehaving_shop import Misbehaving, moody, open_shop, status

HASTY = Patience(backoff_base_s=0.02, backoff_cap_s=0.2, read_timeout_s=0.4)


def crawl(books: int, seed: int, patience: Patience, folder: Path) -> tuple[set[str | None], list[str], Misbehaving]:
    """-> (UPCs that came, what failed, the shop with its visits)."""
    pages = Shop(generate(books, 0))

    def page(path: str) -> bytes | None:
        found = pages.page(path.removeprefix("/"))
        return found.body if found else None

    upcs: set[str | None] = set()
    failed: list[str] = []
    with open_shop(moody(page, 0.3, seed)) as server:
        del server.answers["/robots.txt"]
        (shop,) = sources(Settings(shop_url=server.address))
        with Fetcher(delay_s=0, concurrency=8, patience=patience, shops=[server.address]) as fetcher:
            for category in shop.categories(fetcher):
                report = crawl_category(shop, category, fetcher, folder, "20251121T090807Z")
                raw_books, rejected = read_raw_books(shop, category.slug, report.path)
                upcs |= {book.upc for book in raw_books}
                failed += [page.reason for page in report.failed] + [row.reason for row in rejected]
            counters = fetcher.counters()
    print(f"{counters}, most visits {server.visits.most_common(1)}")
    assert counters.requests == sum(server.visits.values())
    return upcs, failed, server


def test_every_book_of_a_shop_that_fails_three_times_in_ten_comes(tmp_path: Path) -> None:
    upcs, failed, server = crawl(60, 1, HASTY, tmp_path)
    assert upcs == {book.upc for book in generate(60, 0).books} and not failed
    assert 1 < max(server.visits.values()) <= HASTY.attempts


def test_a_shop_that_only_fails_ends_in_one_error_within_its_budget() -> None:
    with open_shop(status(500)) as server, Fetcher(delay_s=0, concurrency=8, patience=HASTY) as fetcher:
        started = time.monotonic()
        with pytest.raises(ShopUnavailable, match="50 more failures than answers"):
            list(fetcher.fetch_many([f"{server.address}/{n}" for n in range(1000)], "book"))
        assert sum(server.visits.values()) <= 1 + 50 + 8 and max(server.visits.values()) <= HASTY.attempts
        assert time.monotonic() - started < 10


if __name__ == "__main__":
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as kept:
        came, lost, _ = crawl(int(sys.argv[1]), int(sys.argv[2]), Patience(), Path(kept))
    print(f"{len(came)} books came, {len(lost)} pages failed or were rejected, {time.monotonic() - begun:.0f} s")
