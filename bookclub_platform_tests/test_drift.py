"""core/drift.py on a real Postgres: what counts as drift, and what is the ordinary noise of few books."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa

from bookclub_platform.core.book import Book
from bookclub_platform.core.drift import Drift, measure_drift, note_before
from bookclub_platform.core.loads import load_category
from bookclub_platform_tests.test_tables import BOOK, NOON


def shelf(count: int) -> list[Book]:
    """Books of all stars and of prices from 10.00 on."""
    return [
        replace(BOOK, source_id=f"upc-{n}", url=f"http://shop/{n}", price=Decimal(10 + n % 40), rating=1 + n % 5)
        for n in range(count)
    ]


def drift(connection: sa.Connection, before: list[Book], now: list[Book]) -> Drift:
    load_category(connection, "shop", "travel", "crawl-1", before, (), NOON)
    assert note_before(connection, "shop", "travel") == len(before)
    later = NOON + timedelta(days=1)
    load_category(connection, "shop", "travel", "crawl-2", [replace(book, seen_at=later) for book in now], (), later)
    return measure_drift(connection, "crawl-2")


@pytest.mark.parametrize("count", [1, 3, 19, 20, 150])
def test_a_category_that_stays_as_it_was_has_not_drifted(connection: sa.Connection, count: int) -> None:
    found = drift(connection, shelf(count), shelf(count))
    assert (found.books, found.price_ratio, found.stability_index) == (count, 1.0, 0.0)
    assert found.price_fault() is None and found.rating_fault() is None


def priced(books: list[Book], factor: str, of_each: int = 1) -> list[Book]:
    """Every `of_each`th book at `factor` times its price."""
    return [
        replace(book, price=(book.price * Decimal(factor)).quantize(Decimal("0.01"))) if n % of_each == 0 else book
        for n, book in enumerate(books)
    ]


@pytest.mark.parametrize(
    ("count", "factor", "of_each", "fault"),
    [
        (1, "0.60", 1, None),
        (1, "10", 1, "10.00 times"),
        (5, "1.9", 1, None),
        (5, "2.1", 1, "2.10 times"),
        (5, "0.4", 1, "0.40 times"),
        (20, "1.2", 1, None),
        (20, "1.3", 1, "1.30 times"),
        (150, "0.75", 1, "0.75 times"),
        (150, "3", 3, None),
        (150, "10", 150, "1 of 150 prices moved by a factor of 5"),
    ],
)
def test_prices_drift_by_their_median_or_by_one_that_jumps(
    connection: sa.Connection, count: int, factor: str, of_each: int, fault: str | None
) -> None:
    found = drift(connection, shelf(count), priced(shelf(count), factor, of_each)).price_fault()
    assert found is None if fault is None else fault in (found or "")


def test_the_furthest_jumps_are_named_with_both_prices(connection: sa.Connection) -> None:
    found = drift(connection, shelf(30), priced(shelf(30), "100", 30))
    assert dict(found.jumps) == {"http://shop/0": "10.00 -> 1000.00"}


def test_a_price_of_nothing_is_compared_with_none(connection: sa.Connection) -> None:
    found = drift(connection, priced(shelf(3), "0", 2), priced(shelf(3), "1"))
    assert (found.books, found.price_ratio, found.price_fault()) == (3, 1.0, None)


def test_another_currency_is_a_fault_and_no_price_jump(connection: sa.Connection) -> None:
    foreign = [replace(book, currency="JPY", price=book.price * 190) for book in shelf(10)]
    found = drift(connection, shelf(10), foreign)
    assert found.jumped == 0 and found.price_fault() == "10 of 10 books have another currency than before"


@pytest.mark.parametrize(("count", "is_odd"), [(1, False), (3, False), (20, True), (150, True)])
def test_stars_that_all_become_one_are_drift_where_there_are_books_enough(
    connection: sa.Connection, count: int, is_odd: bool
) -> None:
    found = drift(connection, shelf(count), [replace(book, rating=1) for book in shelf(count)])
    assert (found.rating_fault() is not None) == is_odd


def test_stars_that_change_hands_are_no_drift(connection: sa.Connection) -> None:
    found = drift(connection, shelf(60), [replace(book, rating=6 - (book.rating or 0)) for book in shelf(60)])
    assert found.rating_fault() is None


@pytest.mark.parametrize("count", [1, 4, 150])
def test_stars_that_are_lost_are_told_even_of_few_books(connection: sa.Connection, count: int) -> None:
    found = drift(connection, shelf(count), [replace(book, rating=None) for book in shelf(count)])
    assert found.rating_fault() == f"{count} of {count} books lost their stars"


def test_a_second_load_of_the_only_crawl_compares_nothing(connection: sa.Connection) -> None:
    load_category(connection, "shop", "travel", "crawl-1", shelf(3), (), NOON)
    note_before(connection, "shop", "travel")
    load_category(connection, "shop", "travel", "crawl-1", shelf(3), (), NOON)
    assert measure_drift(connection, "crawl-1") == Drift()


@pytest.mark.parametrize("kept", [30, 28])  # two books were not seen again
def test_a_second_load_of_one_crawl_finds_the_same_drift(connection: sa.Connection, kept: int) -> None:
    now = [replace(book, rating=1) for book in priced(shelf(30), "10")][:kept]
    first = drift(connection, shelf(30), now)
    assert first.price_fault() and first.rating_fault()
    later = NOON + timedelta(days=1)
    note_before(connection, "shop", "travel")
    load_category(connection, "shop", "travel", "crawl-2", [replace(book, seen_at=later) for book in now], (), later)
    assert measure_drift(connection, "crawl-2") == first


def test_an_older_crawl_that_is_loaded_again_compares_nothing(connection: sa.Connection) -> None:
    drift(connection, shelf(3), priced(shelf(3), "10"))
    note_before(connection, "shop", "travel")
    load_category(connection, "shop", "travel", "crawl-1", shelf(3), (), NOON)
    assert measure_drift(connection, "crawl-1") == Drift()


def test_random_stars_of_two_crawls_seldom_look_like_drift() -> None:
    """The 99.9 % point of the chi-square distribution, tried: 2,000 pairs of draws that differ by chance alone."""
    import random

    draw = random.Random(7)
    for count in (5, 30, 300):
        odd = 0
        for _ in range(2000):
            stars = [[0] * 6, [0] * 6]
            for side in stars:
                for star in draw.choices(range(1, 6), k=count):
                    side[star] += 1
            odd += (
                Drift(books=count, stars_before=tuple(stars[0]), stars_now=tuple(stars[1])).rating_fault() is not None
            )
        assert odd <= 10, count
