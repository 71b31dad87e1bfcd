"""What happens to a book that stands in several categories, or whose crawls come late; and the history of it all."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core import tables
from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.cleaned import CleanedCategory, read_cleaned, write_cleaned
from bookclub_platform.core.loads import LoadResult, load_category, retire_category
from bookclub_platform_tests.test_tables import BOOK, NOON, OTHER, REST, rows

HOUR = timedelta(hours=1)
TRAVEL, FICTION = "travel", "fiction"


def load(connection: sa.Connection, category: str, hour: int, *seen: Book, crawl_id: str = "") -> LoadResult:
    at = NOON + hour * HOUR
    books = [replace(book, category=category, category_name=category.title(), seen_at=at) for book in seen]
    return load_category(connection, "shop", category, crawl_id or f"crawl-{hour}", books, (), at)


def home(connection: sa.Connection, source_id: str = "upc-1") -> str | None:
    """The category of the book; None if it is delisted."""
    row = rows(connection)[source_id]
    assert row["category_name"] == row["category"].title()
    return row["category"] if row["delisted_at"] is None else None


def version(connection: sa.Connection) -> int:
    return connection.execute(tables.select_data_version()).scalar_one()


@pytest.fixture
def both(connection: sa.Connection) -> sa.Connection:
    """BOOK stands in travel, its home, and in fiction; each has others too."""
    load(connection, TRAVEL, 0, BOOK, *REST)
    load(connection, FICTION, 0, BOOK, OTHER)
    return connection


@pytest.mark.parametrize("order", [(TRAVEL, FICTION), (FICTION, TRAVEL)])
def test_a_book_in_two_categories_stays_at_home_and_gives_no_new_version(
    both: sa.Connection, order: tuple[str, str]
) -> None:
    before = version(both)
    seen = {TRAVEL: [BOOK, *REST], FICTION: [BOOK, OTHER]}
    for hour in (1, 2):
        for category in order:
            result = load(both, category, hour, *seen[category])
            assert result == LoadResult(0, 0, len(seen[category]), 0, 0)
    assert (home(both), version(both)) == (TRAVEL, before)
    sightings = sa.select(tables.book_observations.c.crawl_id).join(tables.books).where(tables.books.c.upc == "upc-1")
    assert both.scalars(sightings.order_by("crawl_id")).all() == ["crawl-0", "crawl-1", "crawl-2"]


def test_where_else_a_book_stands_is_part_of_the_version_that_exports_have(connection: sa.Connection) -> None:
    load(connection, TRAVEL, 0, BOOK, *REST)
    load(connection, FICTION, 0, OTHER)
    alone = version(connection)
    load(connection, FICTION, 1, BOOK, OTHER)
    beside = version(connection)
    load(connection, FICTION, 2, OTHER)
    assert alone < beside < version(connection)
    assert home(connection) == TRAVEL


def test_the_other_category_that_lost_a_book_does_not_delist_it(both: sa.Connection) -> None:
    assert load(both, FICTION, 1, OTHER) == LoadResult(0, 0, 1, 0, 0)
    assert home(both) == TRAVEL
    assert load(both, TRAVEL, 2, *REST, OTHER).delisted == 1  # nobody has it any more
    assert home(both) is None


def test_a_book_that_its_home_lost_moves_to_the_category_that_still_has_it(both: sa.Connection) -> None:
    before = version(both)
    # Fiction was crawled after travel, and is loaded before it.
    load(both, FICTION, 3, BOOK, OTHER)
    four = [*REST, replace(OTHER, source_id="upc-9")]
    assert load(both, TRAVEL, 2, *four) == LoadResult(1, 1, 3, 0, 0)
    assert (home(both), version(both)) == (FICTION, before + 1)
    assert both.execute(sa.select(tables.book_categories)).all() == []
    assert load(both, TRAVEL, 4, *four) == LoadResult(0, 0, 4, 0, 0)
    assert home(both) == FICTION


@pytest.mark.parametrize("order", [(TRAVEL, FICTION), (FICTION, TRAVEL)], ids=["home first", "home last"])
def test_a_book_that_moves_ends_in_its_new_category_in_any_order(
    connection: sa.Connection, order: tuple[str, str]
) -> None:
    load(connection, TRAVEL, 0, BOOK, *REST, replace(OTHER, source_id="upc-9"))
    load(connection, FICTION, 0, OTHER)
    book_id = rows(connection)["upc-1"]["id"]
    seen = {TRAVEL: [*REST, replace(OTHER, source_id="upc-9")], FICTION: [OTHER, BOOK]}
    for category in order:
        load(connection, category, 1, *seen[category])
    assert (home(connection), rows(connection)["upc-1"]["id"]) == (FICTION, book_id)
    before = version(connection)
    for category in order:
        load(connection, category, 2, *seen[category])
    assert version(connection) == before


def test_a_change_that_either_category_shows_is_taken(both: sa.Connection) -> None:
    assert load(both, FICTION, 1, replace(BOOK, price=Decimal("9.99")), OTHER).updated == 1
    assert (rows(both)["upc-1"]["price"], home(both)) == (Decimal("9.99"), TRAVEL)


def test_a_category_that_is_gone_leaves_its_books_to_the_others(both: sa.Connection) -> None:
    assert retire_category(both, "shop", TRAVEL, "crawl-1", NOON + HOUR) == 3
    assert home(both) == FICTION
    assert retire_category(both, "shop", FICTION, "crawl-2", NOON + 2 * HOUR) == 2
    assert home(both) is None


def test_a_rejected_page_does_not_end_a_second_category(both: sa.Connection) -> None:
    page = RejectedBook("shop", FICTION, BOOK.url, "title: there is none", NOON + HOUR)
    books = [replace(OTHER, category=FICTION, seen_at=NOON + HOUR)]
    load_category(both, "shop", FICTION, "crawl-1", books, [page], NOON + HOUR)
    assert both.scalars(sa.select(tables.book_categories.c.category)).all() == [FICTION]


def test_an_old_crawl_adds_its_sightings_and_takes_nothing_back(connection: sa.Connection) -> None:
    load(connection, TRAVEL, 5, replace(BOOK, price=Decimal("9.99")), *REST[:2])
    before = rows(connection)
    assert load(connection, TRAVEL, 1, BOOK, *REST[:2], crawl_id="late") == LoadResult(0, 0, 3, 0, 0)
    assert rows(connection) == before
    count = sa.select(sa.func.count()).select_from(tables.book_observations)
    assert connection.scalar(count) == 6


def test_an_old_crawl_does_not_bring_back_what_a_newer_one_found_gone(connection: sa.Connection) -> None:
    load(connection, TRAVEL, 1, BOOK, OTHER, *REST)
    load(connection, TRAVEL, 5, OTHER, *REST)
    load(connection, TRAVEL, 2, BOOK, OTHER, *REST, crawl_id="late")
    assert home(connection) is None


def test_the_same_crawl_cleaned_better_brings_back_what_it_had_missed(connection: sa.Connection) -> None:
    load(connection, TRAVEL, 1, BOOK, OTHER, *REST)
    load(connection, TRAVEL, 5, OTHER, *REST)
    found = [replace(book, seen_at=NOON + 4 * HOUR) for book in (BOOK, OTHER, *REST)]
    load_category(connection, "shop", TRAVEL, "crawl-5", found, (), NOON + 5 * HOUR)
    assert home(connection) == TRAVEL


def test_a_load_takes_any_iterable_and_more_rejected_pages_than_a_statement_has_parameters(
    connection: sa.Connection,
) -> None:
    rejected = [RejectedBook("shop", TRAVEL, f"http://shop/{n}", "price: none", NOON) for n in range(66_000)]
    result = load_category(connection, "shop", TRAVEL, "crawl-0", iter([BOOK, OTHER]), rejected, NOON)
    assert (result.inserted, result.rejected) == (2, 66_000)


def test_the_history_tells_what_held_from_when_until_when(connection: sa.Connection) -> None:
    for hour, price, stock in [(0, "12.50", 3), (1, "12.50", 3), (2, "9.99", 3), (3, "9.99", 2), (4, "9.99", 2)]:
        load(connection, TRAVEL, hour, replace(BOOK, price=Decimal(price), stock=stock), OTHER)
    book_id = rows(connection)["upc-1"]["id"]

    def at(hour: int) -> datetime:
        return NOON + hour * HOUR

    states = connection.execute(tables.select_history(book_id)).all()
    assert states == [
        (at(0), at(2), Decimal("12.50"), 4, 3, None, None, None),
        (at(2), at(3), Decimal("9.99"), 4, 3, Decimal("12.50"), 4, 3),
        (at(3), None, Decimal("9.99"), 4, 2, Decimal("9.99"), 4, 3),
    ]
    history = tables.book_history.c
    sightings = connection.execute(
        sa.select(history.seen_at, history.is_change, history.held_from, history.held_until)
        .where(history.book_id == book_id)
        .order_by(history.seen_at)
    ).all()
    ends = [(0, 2), (0, 2), (2, 3), (3, None), (3, None)]
    assert sightings == [
        (at(hour), hour in {0, 2, 3}, at(start), None if end is None else at(end))
        for hour, (start, end) in enumerate(ends)
    ]


ODD = replace(OTHER, title="Kafka à l'été 🌊", description="|1:-", price=Decimal("0.00"), upc=None, image_url=None)


def test_of_a_book_that_is_as_the_table_has_it_only_the_sighting_is_sent(connection: sa.Connection) -> None:
    load(connection, TRAVEL, 0, BOOK, ODD, *REST)
    cheaper = replace(BOOK, price=Decimal("0.01"))
    assert load(connection, TRAVEL, 1, cheaper, ODD, *REST).updated == 1
    sent = connection.execute(sa.text("SELECT count(book_id), count(title), min(title) FROM pg_temp.incoming")).one()
    assert sent == (1 + len(REST), 1, BOOK.title)


CHANGES = {
    "upc": "other",
    "title": BOOK.title + " ",
    "category_name": "Travels",
    "price": BOOK.price + Decimal("0.01"),
    "currency": "EUR",
    "rating": None,
    "stock": 4,
    "in_stock": not BOOK.in_stock,
    "description": None,
    "num_reviews": 7,
    "url": "http://shop/elsewhere",
    "image_url": "",
}


@pytest.mark.parametrize("field", CHANGES)
def test_a_change_of_any_field_alone_is_an_update(connection: sa.Connection, field: str) -> None:
    for hour, book in enumerate([BOOK, replace(BOOK, **{field: CHANGES[field]}), BOOK]):  # type: ignore[arg-type]
        at = NOON + hour * HOUR
        result = load_category(connection, "shop", BOOK.category, f"crawl-{hour}", [replace(book, seen_at=at)], (), at)
        assert result == (LoadResult(0, 1, 0, 0, 0) if hour else LoadResult(1, 0, 0, 0, 0))
        assert rows(connection)["upc-1"][field] == getattr(book, field)


def test_cleaned_rows_come_back_from_their_file_and_a_newer_file_changes_no_walk(tmp_path: Path) -> None:
    path = tmp_path / "travel.jsonl"
    page = RejectedBook("shop", TRAVEL, "http://shop/x", "price:\n none", NOON, "a#1")
    many = [replace(BOOK, source_id=f"upc-{n}", description="é\n" * 300) for n in range(1000)]
    write_cleaned(path, CleanedCategory("crawl-1", NOON, True, many, [page]))
    cleaned = read_cleaned(path)
    assert cleaned is not None and (cleaned.crawl_id, cleaned.rejected, len(cleaned.books)) == ("crawl-1", [page], 1000)
    write_cleaned(path, CleanedCategory("crawl-2", NOON, True, [OTHER], []))
    assert list(cleaned.books) == list(cleaned.books) == many
    assert read_cleaned(tmp_path / "none.jsonl") is None
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[-1] + b"\n")
    damaged = read_cleaned(path)
    assert damaged is not None
    with pytest.raises(ValueError, match="2 books and not 1"):
        list(damaged.books)
