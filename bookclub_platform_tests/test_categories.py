"""core/categories.py on a real Postgres: what it takes until a category is retired, and how it comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from bookclub_platform.cli import main
from bookclub_platform.core import loads, tables
from bookclub_platform.core.book import Category
from bookclub_platform.core.categories import (
    Changes,
    NoSuchCategory,
    is_retired,
    note_listing,
    restore,
    retire,
    retired_slugs,
)
from bookclub_platform.core.explore import select_last_crawls
from bookclub_platform_tests.test_tables import BOOK

SHOP = "shop"
FIRST = datetime(2026, 11, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ALL = ["art", "crime", "fiction", "poetry", "travel"]


@pytest.fixture
def connection(database_url: str) -> Iterator[sa.Connection]:
    """Rolled back at the end."""
    with sa.create_engine(database_url, poolclass=sa.NullPool).connect() as connection:
        yield connection


def listing(connection: sa.Connection, slugs: Sequence[str], at: datetime, source: str = SHOP) -> Changes:
    return note_listing(connection, source, [Category(slug, slug.title(), f"http://shop/{slug}") for slug in slugs], at)


def load(connection: sa.Connection, category: str, at: datetime) -> None:
    book = replace(BOOK, source=SHOP, source_id=f"upc-{category}", category=category, seen_at=at)
    loads.load_category(connection, SHOP, category, f"crawl {at}", [book], [], at)


def listed_books(connection: sa.Connection, category: str) -> int:
    return connection.execute(tables.select_count(tables.select_books(category=category))).scalar_one()


def test_three_listings_without_it_over_a_day_retire_a_category_with_its_books(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    load(connection, "travel", FIRST)
    for at in (FIRST + DAY, FIRST + 1.5 * DAY):
        assert listing(connection, ALL[:-1], at) == Changes(absent=["travel"])
        assert listed_books(connection, "travel") == 1
    assert listing(connection, ALL[:-1], FIRST + 2 * DAY) == Changes(retired={"travel": 1})
    assert listed_books(connection, "travel") == 0
    assert retired_slugs(connection, SHOP) == {"travel"}
    assert listing(connection, ALL[:-1], FIRST + 3 * DAY) == Changes()


def test_many_listings_within_an_hour_retire_nothing(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    for minute in range(10):
        listing(connection, ALL[:-1], FIRST + timedelta(minutes=minute))
    assert retired_slugs(connection, SHOP) == set()


def test_a_listing_in_between_starts_the_count_anew(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    for days, slugs in [(1, ALL[:-1]), (2, ALL[:-1]), (3, ALL), (4, ALL[:-1]), (5, ALL[:-1])]:
        listing(connection, slugs, FIRST + days * DAY)
    assert retired_slugs(connection, SHOP) == set()


@pytest.mark.parametrize("slugs", [ALL[:3], ALL[:1], []])
def test_a_shop_that_loses_many_at_once_is_not_believed_however_long(
    connection: sa.Connection, slugs: list[str]
) -> None:
    listing(connection, ALL, FIRST)
    for day in range(1, 9):
        assert listing(connection, slugs, FIRST + day * DAY).is_doubted
    assert retired_slugs(connection, SHOP) == set()


def test_an_only_category_is_not_retired_by_an_empty_listing(connection: sa.Connection) -> None:
    listing(connection, ["art"], FIRST)
    assert all(listing(connection, [], FIRST + day * DAY).is_doubted for day in range(1, 5))


def test_one_that_the_shop_lists_again_comes_back_by_itself(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    for day in (1, 2, 3):
        listing(connection, ALL[:-1], FIRST + day * DAY)
    assert retired_slugs(connection, SHOP) == {"travel"}
    assert listing(connection, ALL, FIRST + 4 * DAY) == Changes(restored=["travel"])
    assert retired_slugs(connection, SHOP) == set()
    load(connection, "travel", FIRST + 4 * DAY)
    assert listed_books(connection, "travel") == 1


def test_what_a_person_retired_comes_back_by_a_person_alone(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    load(connection, "art", FIRST)
    assert retire(connection, SHOP, "art", FIRST + DAY, by="operator") == 1
    assert listing(connection, ALL, FIRST + 2 * DAY) == Changes()
    assert is_retired(connection, SHOP, "art")
    assert listed_books(connection, "art") == 0
    assert retire(connection, SHOP, "art", FIRST + 2 * DAY, by="operator") == 0
    assert restore(connection, SHOP, "art") == 1
    assert not is_retired(connection, SHOP, "art")
    assert listed_books(connection, "art") == 1, "a mistake is undone at once, without a crawl"
    assert restore(connection, SHOP, "art") == 0


def test_restoring_lists_no_book_that_was_gone_before_and_none_of_a_category_that_the_shop_closed(
    connection: sa.Connection,
) -> None:
    listing(connection, ALL, FIRST)
    load(connection, "art", FIRST)
    load(connection, "travel", FIRST)
    connection.execute(sa.update(tables.books).where(tables.books.c.category == "art").values(delisted_at=FIRST))
    retire(connection, SHOP, "art", FIRST + DAY, by="operator")
    retire(connection, SHOP, "travel", FIRST + DAY, by="shop")
    assert restore(connection, SHOP, "art") == 0
    assert restore(connection, SHOP, "travel") == 0
    assert (listed_books(connection, "art"), listed_books(connection, "travel")) == (0, 0)


def test_a_retired_category_is_no_crawl_of_the_report(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    load(connection, "art", FIRST)
    load(connection, "travel", FIRST)
    retire(connection, SHOP, "travel", FIRST + DAY, by="operator")
    assert [row.category for row in connection.execute(select_last_crawls())] == ["art"]


def test_one_shop_retires_nothing_of_another(connection: sa.Connection) -> None:
    listing(connection, ALL, FIRST)
    listing(connection, ALL, FIRST, source="other")
    retire(connection, "other", "art", FIRST, by="operator")
    assert (retired_slugs(connection, SHOP), retired_slugs(connection, "other")) == (set(), {"art"})


def test_a_category_that_nobody_listed_is_an_error_with_its_name(connection: sa.Connection) -> None:
    for change in (
        lambda: retire(connection, SHOP, "mars", FIRST, by="operator"),
        lambda: restore(connection, SHOP, "x"),
    ):
        with pytest.raises(NoSuchCategory, match="bookclub categories list"):
            change()


def test_the_command_lists_retires_and_restores(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as connection:
        listing(connection, ALL, FIRST)
        load(connection, "travel", FIRST)
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url.replace("+psycopg", ""))
    run = CliRunner().invoke
    assert [line.split()[-1] for line in run(main, ["categories", "list"]).output.splitlines()[1:]] == ["alive"] * 5
    assert "shop/travel is retired; 1 books" in run(main, ["categories", "retire", "travel"]).output
    (row,) = (line for line in run(main, ["categories", "list"]).output.splitlines() if line.startswith("travel"))
    assert row.split()[:5] == ["travel", SHOP, "0", "2026-11-01", "00:00"]
    assert "by hand" in row
    assert "shop/travel is restored; 1 books" in run(main, ["categories", "restore", "travel", "--source", SHOP]).output
    wrong = run(main, ["categories", "retire", "mars"])
    assert (wrong.exit_code, "mars" in wrong.output) == (1, True)
    assert run(main, ["categories", "retire"]).exit_code == 2


def test_the_books_of_a_removed_source_are_delisted_by_command_and_come_back_with_it(
    monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    def load_again(connection: sa.Connection) -> None:
        for source, category in (("shelf", None), ("closed", "travel")):
            book = replace(BOOK, source=source, source_id="1", seen_at=datetime.now(UTC))
            loads.load_category(connection, source, category, f"crawl {book.seen_at}", [book], [], book.seen_at)
        listing(connection, ["travel"], datetime.now(UTC), source="closed")

    def listed(connection: sa.Connection) -> list[str]:
        return [row.source for row in connection.execute(tables.select_books()) if row.source in ("shelf", "closed")]

    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url.replace("+psycopg", ""))
    run = CliRunner().invoke
    with engine.begin() as connection:
        load_again(connection)
        assert listed(connection) == ["shelf", "closed"]
    assert "shelf is retired; 1 books" in run(main, ["sources", "retire", "shelf"]).output
    assert "closed is retired; 1 books" in run(main, ["sources", "retire", "closed"]).output
    refused = run(main, ["sources", "retire", "books_toscrape"])
    assert refused.exit_code == 1 and "Remove it there first" in refused.output
    with engine.begin() as connection:
        assert listed(connection) == [] and retired_slugs(connection, "closed") == {"travel"}
        load_again(connection)
        assert listed(connection) == ["shelf", "closed"] and not retired_slugs(connection, "closed")
