"""core/tables.py on a real Postgres: what a load does, and what readers see after it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from bookclub_platform.core import accounts, alarms, categories, feedback, served_models, tables
from bookclub_platform.core.book import Book, RejectedBook
from bookclub_platform.core.browse import Filters, Position, select_sorted, select_total
from bookclub_platform.core.database import migrate
from bookclub_platform.core.loads import LoadResult, load_category, retire_category

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MIDNIGHT = NOON + timedelta(hours=12)
BOOK = Book(
    source="shop",
    source_id="upc-1",
    upc="upc-1",
    title="The Salt Road",
    category="travel",
    category_name="Travel",
    price=Decimal("12.50"),
    currency="GBP",
    rating=4,
    stock=3,
    in_stock=True,
    description="A walk, told twice.",
    num_reviews=0,
    url="http://shop/salt-road",
    image_url=None,
    seen_at=NOON,
)
OTHER = replace(BOOK, source_id="upc-2", upc="upc-2", title="Harbour Lights", url="http://shop/harbour-lights")
REST = [replace(BOOK, source_id=f"upc-{n}", upc=f"upc-{n}", url=f"http://shop/{n}") for n in range(3, 6)]


pytestmark = pytest.mark.both_servers


def load(
    connection: sa.Connection,
    *seen: Book,
    at: datetime = NOON,
    rejected: tuple[RejectedBook, ...] = (),
    is_complete: bool = True,
) -> LoadResult:
    books = [replace(book, seen_at=at) for book in seen]
    return load_category(connection, "shop", "travel", f"crawl-{at:%H}", books, rejected, at, is_complete)


def rows(connection: sa.Connection) -> dict[str, sa.RowMapping]:
    return {row["source_id"]: row for row in connection.execute(sa.select(tables.books)).mappings()}


def count(connection: sa.Connection, table: sa.Table) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def test_a_first_load_keeps_every_field(connection: sa.Connection) -> None:
    assert load(connection, BOOK) == LoadResult(inserted=1, updated=0, unchanged=0, delisted=0, rejected=0)
    row = rows(connection)["upc-1"]
    kept = {name: row[name] for name in Book.__dataclass_fields__ if name != "seen_at"}
    assert kept == {name: getattr(BOOK, name) for name in kept}
    assert row["first_seen_at"] == row["last_seen_at"] == row["updated_at"] == NOON
    assert row["delisted_at"] is None


def test_the_same_load_twice_changes_nothing(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER)
    before, version = rows(connection), connection.scalar(tables.select_data_version())
    assert load(connection, BOOK, OTHER) == LoadResult(0, 0, 2, 0, 0)
    assert rows(connection) == before
    assert connection.scalar(tables.select_data_version()) == version
    assert count(connection, tables.book_observations) == 2


def test_an_unchanged_book_seen_again_is_only_a_sighting(connection: sa.Connection) -> None:
    load(connection, BOOK)
    version = connection.scalar(tables.select_data_version())
    assert load(connection, BOOK, at=MIDNIGHT).unchanged == 1
    row = rows(connection)["upc-1"]
    assert (row["first_seen_at"], row["last_seen_at"], row["updated_at"]) == (NOON, MIDNIGHT, NOON)
    assert connection.scalar(tables.select_data_version()) == version
    assert count(connection, tables.book_observations) == 2


def test_a_changed_price_updates_the_row_and_keeps_the_old_one_in_the_history(connection: sa.Connection) -> None:
    load(connection, BOOK)
    first_id, version = rows(connection)["upc-1"]["id"], connection.scalar(tables.select_data_version())
    assert load(connection, replace(BOOK, price=Decimal("9.99")), at=MIDNIGHT).updated == 1
    row = rows(connection)["upc-1"]
    assert (row["id"], row["price"], row["updated_at"]) == (first_id, Decimal("9.99"), MIDNIGHT)
    prices = connection.scalars(sa.select(tables.book_observations.c.price).order_by("seen_at")).all()
    assert prices == [Decimal("12.50"), Decimal("9.99")]
    assert connection.execute(tables.select_data_version()).scalar_one() > (version or 0)


def test_a_book_that_is_gone_is_marked_and_comes_back(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER, *REST)
    assert load(connection, OTHER, *REST, at=MIDNIGHT).delisted == 1
    assert rows(connection)["upc-1"]["delisted_at"] == MIDNIGHT
    listed = connection.execute(tables.select_books()).mappings().all()
    assert [row["source_id"] for row in listed] == ["upc-2", "upc-3", "upc-4", "upc-5"]
    later = MIDNIGHT + timedelta(hours=1)
    assert load(connection, BOOK, OTHER, *REST, at=later).updated == 1
    assert rows(connection)["upc-1"]["delisted_at"] is None


def test_a_crawl_that_found_too_few_books_delists_nothing_and_says_so(connection: sa.Connection) -> None:
    everything = [BOOK, OTHER, *REST, *(replace(book, source_id=f"{book.source_id}b") for book in (BOOK, *REST, OTHER))]
    load(connection, *everything)
    few = load(connection, *everything[:7], at=MIDNIGHT)
    assert (few.delisted, few.is_shrunken) == (0, True)
    assert all(row["delisted_at"] is None for row in rows(connection).values())
    enough = load(connection, *everything[:8], at=MIDNIGHT)
    assert (enough.delisted, enough.is_shrunken) == (2, False)
    none = load(connection, at=MIDNIGHT + timedelta(hours=1))
    assert (none.delisted, none.is_shrunken) == (0, True)


def test_a_person_who_has_looked_can_have_a_shrunken_category_believed(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER)
    late = replace(OTHER, seen_at=MIDNIGHT)
    result = load_category(connection, "shop", "travel", "crawl-2", [late], (), MIDNIGHT, least_share=0)
    assert (result.delisted, result.is_shrunken) == (1, False)


def test_the_books_of_a_category_that_is_gone_are_marked_and_come_back(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER, *REST)
    moved = replace(OTHER, category="fiction", seen_at=MIDNIGHT)
    load_category(connection, "shop", "fiction", "crawl-2", [moved], (), MIDNIGHT)
    version = connection.execute(tables.select_data_version()).scalar_one()
    assert retire_category(connection, "shop", "travel", "crawl-2", MIDNIGHT) == 4
    assert [row["source_id"] for row in connection.execute(tables.select_books()).mappings()] == ["upc-2"]
    assert count(connection, tables.books) == 5
    assert connection.execute(tables.select_data_version()).scalar_one() > version
    assert retire_category(connection, "shop", "travel", "crawl-3", MIDNIGHT) == 0
    assert load(connection, BOOK, *REST, at=MIDNIGHT + timedelta(hours=1)).updated == 4


def test_a_crawl_that_is_not_complete_delists_nothing(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER)
    assert load(connection, OTHER, at=MIDNIGHT, is_complete=False).delisted == 0
    assert rows(connection)["upc-1"]["delisted_at"] is None


def test_a_rejected_page_is_kept_with_its_reason_and_its_last_good_row_stays(connection: sa.Connection) -> None:
    load(connection, BOOK, OTHER)
    place = "shop/travel/1.warc.gz#77"
    page = RejectedBook("shop", "travel", BOOK.url, "title: nothing there", MIDNIGHT, place, "title_given")
    assert load(connection, OTHER, at=MIDNIGHT, rejected=(page,)) == LoadResult(0, 0, 1, 0, 1)
    assert rows(connection)["upc-1"]["delisted_at"] is None
    kept = connection.execute(sa.select(tables.rejected_books.c["rule", "reason", "raw_page"])).all()
    assert kept == [("title_given", "title: nothing there", place)]


@pytest.mark.parametrize("change", [{"stock": 0, "in_stock": False}, {"title": "The Salt Path"}], ids=str)
def test_a_changed_stock_or_title_is_an_update_of_the_same_row(
    connection: sa.Connection, change: dict[str, Any]
) -> None:
    load(connection, BOOK)
    before = rows(connection)["upc-1"]
    assert load(connection, replace(BOOK, **change), at=MIDNIGHT).updated == 1
    assert rows(connection)["upc-1"] == {**before, **change, "last_seen_at": MIDNIGHT, "updated_at": MIDNIGHT}


def test_a_nul_is_refused_by_postgres_itself(connection: sa.Connection) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        load(connection, replace(BOOK, title="a\0b"))


def test_two_books_with_one_title_are_two_rows(connection: sa.Connection) -> None:
    load(connection, BOOK, replace(OTHER, title=BOOK.title))
    assert [row["title"] for row in rows(connection).values()] == [BOOK.title, BOOK.title]


@pytest.mark.parametrize(
    "wrong",
    [
        {"rating": 6},
        {"rating": 0},
        {"price": Decimal("-1")},
        {"stock": -1},
        {"num_reviews": -1},
        {"title": " "},
        {"category": ""},
        {"source_id": ""},
    ],
    ids=str,
)
def test_the_table_refuses_what_no_book_can_have(connection: sa.Connection, wrong: dict[str, object]) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        load(connection, replace(BOOK, **wrong))  # type: ignore[arg-type]


def test_pages_follow_each_other_without_gap_or_repeat(connection: sa.Connection) -> None:
    load(connection, *(replace(BOOK, source_id=f"upc-{n}", in_stock=n % 2 == 0) for n in range(7)))
    chosen = Filters(category="travel", in_stock=True)
    assert connection.scalar(select_total(chosen)) == 4
    first = connection.execute(select_sorted(chosen, "id", None, 3)).mappings().all()
    rest = connection.execute(select_sorted(chosen, "id", Position(first[-1]["id"]), 3)).mappings().all()
    assert [row["source_id"] for row in [*first, *rest]] == ["upc-0", "upc-2", "upc-4", "upc-6"]


def test_the_migrations_make_the_tables_that_the_code_names(database_url: str) -> None:
    migrate(database_url)  # a second time: nothing left to do
    # The role is called like the schema, so by default reflection would leave the schema's name out.
    engine = sa.create_engine(database_url, connect_args={"options": "-csearch_path=public"})
    with engine.connect() as connection:
        options = {"include_schemas": True, "version_table_schema": tables.SCHEMA, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        differences = [
            change
            for change in compare_metadata(context, tables.metadata)  # with the tables that the assertion below names
            if not (change[0] == "remove_table" and change[1].schema != tables.SCHEMA)
        ]
    engine.dispose()
    assert differences == []
    elsewhere = {alarms.outbox, categories.categories, accounts.users, feedback.feedback, served_models.served_models}
    assert elsewhere <= set(tables.metadata.sorted_tables)
