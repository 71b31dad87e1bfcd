"""core/rules.py: one declaration, and cleaning, database and docs agree with it."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bookclub_platform.cleaning import clean
from bookclub_platform.core import tables
from bookclub_platform.core.book import Book
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.rules import KEY_UNIQUE, PRICE_READABLE, broken_rule, columns, page, rules
from bookclub_platform_tests.test_cleaning import RAW
from bookclub_platform_tests.test_tables import BOOK

# A row that breaks this rule and no other, at each end where there are two.
BREAKS: dict[str, list[dict[str, Any]]] = {
    "source_given": [{"source": ""}],
    "source_id_given": [{"source_id": " "}],
    "title_given": [{"title": ""}, {"title": " \t\n"}],
    "category_given": [{"category": ""}],
    "category_name_given": [{"category_name": "  "}],
    "price_range": [{"price": Decimal("-0.01")}, {"price": Decimal("100000000.00")}],
    "currency_form": [{"currency": "gbp"}, {"currency": "£"}],
    "rating_range": [{"rating": 0}, {"rating": 6}],
    "stock_range": [{"stock": -1}, {"stock": 2**31}],
    "num_reviews_range": [{"num_reviews": -1}, {"num_reviews": 2**31}],
    "url_given": [{"url": ""}],
    "source_id_length": [{"source_id": "é" * 1_001}],
    "upc_length": [{"upc": "1" * 201}],
    "title_length": [{"title": "T" * 4_001}],
    "category_length": [{"category": "c" * 201}],
    "url_length": [{"url": f"http://shop.test/{'a' * 2_000}"}],
    "text_storable": [{"description": "a\x00b"}, {"title": "half \ud83d"}],
}
EXAMPLES = [(name, change) for name, changes in BREAKS.items() for change in changes]


def test_each_field_says_what_it_means_and_each_rule_has_an_example_here() -> None:
    assert list(columns(Book)) == list(Book.__dataclass_fields__)
    assert all(column.meaning.endswith(".") or ":" in column.meaning for column in columns(Book).values())
    assert {rule.name for rule in rules(Book) if rule.is_kept} == set(BREAKS)


def test_a_good_row_keeps_every_rule() -> None:
    assert broken_rule(BOOK) is None
    assert broken_rule(replace(BOOK, rating=None, stock=None, num_reviews=None, description=None)) is None


@pytest.mark.parametrize(("name", "change"), EXAMPLES)
def test_a_row_that_breaks_a_rule_is_told_its_name(name: str, change: dict[str, Any]) -> None:
    rule = broken_rule(replace(BOOK, **change))
    assert rule is not None and rule.name == name


@pytest.mark.parametrize(("name", "change"), [one for one in EXAMPLES if not one[0].endswith("_length")])
def test_the_database_refuses_what_the_rule_refuses(
    connection: sa.Connection, name: str, change: dict[str, Any]
) -> None:
    row = replace(BOOK, **change)
    with pytest.raises((sa.exc.DBAPIError, UnicodeEncodeError, ValueError)) as refusal:
        # A row at a time: what a load stages is refused before the table sees it, by COPY and its types.
        values = {field: getattr(row, field) for field in Book.__dataclass_fields__ if field != "seen_at"}
        seen = dict.fromkeys(["first_seen_at", "last_seen_at", "updated_at"], row.seen_at)
        connection.execute(sa.insert(tables.books).values(values | seen))
    if isinstance(refusal.value, sa.exc.IntegrityError):
        assert f"ck_books_{name}" in str(refusal.value)
    else:  # a type of the table is narrower than the rule, or no text can hold it
        assert name in {"price_range", "stock_range", "num_reviews_range", "text_storable"}


def test_every_rule_of_the_rows_is_a_constraint_of_the_database(database_url: str) -> None:
    engine = sa.create_engine(database_url)
    for table in (tables.books, tables.book_observations):
        held = {check["name"] for check in sa.inspect(engine).get_check_constraints(table.name, tables.SCHEMA)}
        declared = {
            f"ck_{table.name}_{rule.name}"
            for rule in rules(Book)
            if rule.sql and set(rule.fields) <= set(table.c.keys())
        }
        assert declared <= held
        assert not any(name.endswith(("_rating", "_price", "_stock")) for name in held if name), "of an older revision"
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "rule", "reason"),
    [
        ({"title": "\xa0\n"}, "title_given", "title: '\\xa0\\n'"),
        ({"title": None}, "title_given", "title: there is none"),
        ({"price": "-3"}, PRICE_READABLE.name, "price: '-3'"),
        ({"category": ""}, "category_given", "category: there is none"),
    ],
)
def test_cleaning_rejects_under_the_name_of_the_rule(change: dict[str, Any], rule: str, reason: str) -> None:
    cleaned = clean([replace(RAW, **change)])
    assert not cleaned.books
    assert [(row.rule, row.reason) for row in cleaned.rejected] == [(rule, reason)]


def test_a_key_that_two_pages_have_is_rejected_under_its_name() -> None:
    cleaned = clean([RAW, replace(RAW, url="http://shop.test/other")])
    assert [row.rule for row in cleaned.rejected] == [KEY_UNIQUE.name]


def test_the_rule_is_kept_beside_the_reason(connection: sa.Connection) -> None:
    cleaned = clean(
        [replace(RAW, source="shop", title=None), replace(RAW, source="shop", url="http://shop/b", price="?")]
    )
    load_category(connection, "shop", "travel", "crawl-1", [], cleaned.rejected, RAW.seen_at)
    kept = connection.execute(sa.select(tables.rejected_books.c.rule).order_by("rule")).scalars().all()
    assert kept == ["price_readable", "title_given"]


def test_the_longest_texts_that_keep_the_rules_fit_the_indexes_and_longer_ones_are_rejected(
    connection: sa.Connection,
) -> None:
    def long(size: int) -> str:
        """Of signs of four bytes, in no order that could be compressed."""
        return "".join(random.Random(1).choices([chr(0x10400 + at) for at in range(256)], k=size // 4))

    texts = {"source_id": long(2_000), "upc": long(200), "title": long(4_000), "url": long(2_000)}
    row = replace(RAW, source="s" * 63, category=long(200), **texts)  # type: ignore[arg-type]
    too_long = [replace(row, **{name: f"{text}!"}) for name, text in texts.items()]  # type: ignore[arg-type]
    cleaned = clean([row, *too_long])
    assert [row.rule for row in cleaned.rejected] == [f"{name}_length" for name in texts]
    assert all(len(row.reason.encode()) < 500 for row in cleaned.rejected)
    unreadable = replace(row, source_id=None, upc=None, price="?", url=f"http://shop.test/{long(8_000)}#line=7")
    rejected = [*cleaned.rejected, *clean([unreadable]).rejected]
    assert rejected[-1].url.startswith("http://shop.test/") and rejected[-1].url.endswith("#line=7")
    crawl_id = "20261201T030000.000000Z-0a1b2c3d"
    done = load_category(connection, row.source, row.category, crawl_id, cleaned.books, rejected, RAW.seen_at)
    # Three of the refused rows have the same address, and the table keeps one row of each.
    assert (done.inserted, done.rejected) == (1, 5)
    assert connection.scalar(sa.select(sa.func.count()).select_from(tables.rejected_books)) == 3


def test_the_page_about_rows_is_what_the_declaration_says() -> None:
    written = (Path(__file__).parents[1] / "docs" / "rows.md").read_text(encoding="utf-8")
    assert written == page(), "write it anew: python -m bookclub_platform.core.rules > docs/rows.md"
