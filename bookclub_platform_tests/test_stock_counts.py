"""What /stats and /categories count in memory, beside what Postgres counts of the same made-up books."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import TypeAdapter

from bookclub_platform.core.stats import CategoryCount, CategoryTally, Summary
from bookclub_platform.core.stock import Stock, read_stock
from bookclub_platform.core.tables import books
from bookclub_platform_tests import test_stock
from serving.counting import counts
from serving.database.catalogue import Catalogue
from serving.database.datawatch import DataWatch

engine = test_stock.engine

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Of one slug two names, of one name two slugs, and letters that languages put in different places.
SHELVES = [
    ("travel", "Travel"),
    ("travel", "travel"),
    ("voyages", "Travel"),
    ("e", "Ét\u00e9"),
    ("z", "zoo"),
    ("Z", "_"),
]
pytestmark = pytest.mark.both_servers  # they sort letters in different ways

Counted = tuple[Summary, list[CategoryTally], list[CategoryCount]]


def made_up(seed: int, number: int) -> list[dict[str, Any]]:
    """Books of few prices, so that there are ties, with all that may be absent absent in some."""
    draw = random.Random(seed)
    sources, currencies = ["shop", "Shop", "über"], ["GBP", "EUR", "USD"][: 1 + seed % 3]
    prices = [Decimal(draw.randrange(1, 3000)) / 100 for _ in range(9)] + [Decimal(0), Decimal("99999999.99")]
    rows = []
    for at in range(number):
        category, name = draw.choice(SHELVES)
        rows.append({
            "source": draw.choice(sources), "source_id": str(at), "title": f"Book {at}", "category": category,
            "category_name": name, "price": draw.choice(prices), "currency": draw.choice(currencies),
            "rating": draw.choice([None, 1, 2, 3, 4, 5]), "stock": draw.choice([None, 0, 7, 2**31 - 1]),
            "in_stock": draw.random() < 0.7, "url": "http://127.0.0.1/", "last_seen_at": NOW + timedelta(days=9),
            "first_seen_at": NOW + timedelta(seconds=draw.random() * 9), "delisted_at": draw.choice([None, None, NOW]),
            "updated_at": NOW + timedelta(seconds=draw.random() * 9),
        })  # fmt: skip
    return rows


def put(engine: sa.Engine, rows: list[dict[str, Any]]) -> Stock:
    with engine.begin() as connection:
        if rows:
            connection.execute(sa.insert(books), rows)
    with engine.connect() as connection:
        return read_stock(connection)


def counted(database_url: str, stock: Stock | None) -> tuple[Counted, list[str]]:
    """What is counted when it is asked for twice, and the statements that Postgres was asked."""
    catalogue = Catalogue(database_url, DataWatch(database_url))
    asked: list[str] = []
    sa.event.listen(catalogue._engine.sync_engine, "before_cursor_execute", lambda *told: asked.append(told[2]))

    async def count() -> Counted:
        async with catalogue.snapshot(catalogue.figures) as snapshot:
            summary = await counts.overview(snapshot, stock)
            by_category = list(await counts.by_category(snapshot, stock))
            return summary, by_category, list(await counts.categories(snapshot, stock))

    async def count_twice() -> list[Counted]:
        try:
            return [await count(), await count()]
        finally:
            await catalogue.close()

    first, again = asyncio.run(count_twice())
    assert first == again
    return first, asked


def as_json(found: Counted) -> str:
    return TypeAdapter(Counted).dump_json(found, indent=1).decode()


@pytest.mark.parametrize(("seed", "number"), enumerate([0, 1, 2, 40, 400, 1500, 1500, 1500]))
def test_memory_and_postgres_count_the_same_to_the_last_digit(
    engine: sa.Engine, database_url: str, seed: int, number: int
) -> None:
    stock = put(engine, made_up(seed, number))
    in_memory, asked = counted(database_url, stock)
    by_postgres, _ = counted(database_url, None)
    assert as_json(in_memory) == as_json(by_postgres)
    assert not any("count(" in statement for statement in asked), "Postgres has counted"
    assert sum("dense_rank" in statement for statement in asked) == 3, "each is counted once for one state"
    if number > 100:
        assert in_memory[0].delisted > 10 and {one.category for one in in_memory[1]} == {slug for slug, _ in SHELVES}


def test_no_digit_of_dear_prices_is_lost(engine: sa.Engine, database_url: str) -> None:
    rows = [row | {"currency": "GBP", "delisted_at": None} for row in made_up(9, 999)]
    (summary, *_), _ = counted(database_url, put(engine, rows))
    prices = [Fraction(row["price"]) for row in rows]
    assert summary.tally.mean == float(sum(prices) / len(prices))
    rated = [(Fraction(row["price"]), row["rating"]) for row in rows if row["rating"]]
    mean_x, mean_y = (sum(column) / Fraction(len(rated)) for column in zip(*rated, strict=True))
    xy, xx, yy = (sum((x - mean_x) ** a * (y - mean_y) ** b for x, y in rated) for a, b in [(1, 1), (2, 0), (0, 2)])
    assert summary.tally.correlation == pytest.approx(float(xy) / float(xx * yy) ** 0.5, rel=1e-14)


def test_where_a_book_was_deleted_by_hand_postgres_counts(engine: sa.Engine, database_url: str) -> None:
    stock = put(engine, [row | {"delisted_at": None} for row in made_up(3, 5)])
    with engine.begin() as connection:
        connection.execute(sa.delete(books).where(books.c.source_id == "2"))
    (summary, _, shelves), _ = counted(database_url, stock)
    assert summary.tally.books == 4 == sum(one.books for one in shelves)
