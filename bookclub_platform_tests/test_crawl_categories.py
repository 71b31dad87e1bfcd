"""A shop of which some categories do not answer: they are given up, and the others are crawled; a dead shop is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bookclub_platform.core.errors import ShopUnavailable
from bookclub_platform.sources import CrawlReport, Patience, crawl_categories, latest
from bookclub_platform.sources._crawl import MOST_GIVEN_UP
from bookclub_platform.sources._web import Web
from bookclub_platform.sources.books_toscrape import BooksToScrape
from bookclub_platform_tests.counting_shop import CountingShop, counting_shop

QUICK = Patience(attempts=3, backoff_base_s=0.01, backoff_cap_s=0.02, failures_ahead=6)


@pytest.fixture
def shop() -> Iterator[CountingShop]:
    with counting_shop(300) as shop:
        yield shop


@pytest.fixture
def source(shop: CountingShop) -> BooksToScrape:
    return BooksToScrape(shop.address, web=Web(delay_s=0, concurrency=4, patience=QUICK))


def outcomes(source: BooksToScrape, folder: Path, slugs: Sequence[str] | None = None) -> dict[str, bool]:
    """slug -> whether its crawl came to its end."""
    with source.fetcher() as fetcher:
        wanted = [category for category in source.categories(fetcher) if slugs is None or category.slug in slugs]
        found = crawl_categories(source, wanted, fetcher, folder, "20260101T000000.000000Z-1")
        return {category.slug: isinstance(report, CrawlReport) for category, report in found}


def test_a_category_that_does_not_answer_is_given_up_alone(
    shop: CountingShop, source: BooksToScrape, tmp_path: Path
) -> None:
    with source.fetcher() as fetcher:
        categories = source.categories(fetcher)
        sick = categories[0]  # the others come after it
        urls = source.listing(fetcher.fetch(sick.url, "listing")).book_urls
    paths = {url.removeprefix(shop.address) for url in urls}
    assert len(paths) * QUICK.attempts > QUICK.failures_ahead
    shop.fails = paths.__contains__
    shop.forget()

    assert outcomes(source, tmp_path) == {category.slug: category != sick for category in categories}
    assert shop.statuses[500] <= QUICK.failures_ahead + 4, "what it takes to see it, and what was under way"
    assert latest(tmp_path, source.name, sick.slug) is None

    shop.fails = lambda _: False
    assert outcomes(source, tmp_path, [sick.slug]) == {sick.slug: True}, "a later crawl has it"


def test_a_shop_that_dies_on_the_way_ends_the_crawl(shop: CountingShop, source: BooksToScrape, tmp_path: Path) -> None:
    shop.fails = lambda _: shop.requests.total() > 100
    with pytest.raises(ShopUnavailable):
        outcomes(source, tmp_path)
    assert shop.statuses[500] <= 2 * (QUICK.failures_ahead + 4)


def test_a_shop_of_which_too_many_categories_fail_is_let_be(
    shop: CountingShop, source: BooksToScrape, tmp_path: Path
) -> None:
    shop.fails = lambda path: path.startswith("/catalogue/") and "/category/" not in path
    with pytest.raises(ShopUnavailable):
        outcomes(source, tmp_path)
    assert shop.statuses[500] <= (MOST_GIVEN_UP + 1) * (QUICK.failures_ahead + 4)
