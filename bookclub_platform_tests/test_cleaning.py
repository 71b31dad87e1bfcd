"""Cleaning, step by step: what is mended, what is left out, what is refused, and that each is counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bookclub_platform.cleaning import clean, count, description, price, rating, stock
from bookclub_platform.core.book import RawBook

REAL_BOOKS = Path(__file__).parents[2] / "shared" / "shop" / "books.jsonl"
RAW = RawBook(
    source="shop",
    url="http://shop.test/a_1/index.html",
    category="travel",
    category_name="Travel",
    upc="a897fe39b1053632",
    title="The Lamp at Low Water",
    price="£51.77",
    rating="Three",
    availability="\n\n    In stock (22 available)\n\n",
    description="A keeper writes letters.",
    num_reviews="0",
    image_url="http://shop.test/a.jpg",
    seen_at=datetime(2025, 11, 21, tzinfo=UTC),
)
WHOLE = (
    "“Every lamp,” says the keeper, “is a letter to somebody.” On an island that no ferry serves, Ilse Brandt counts "
    "ships, mends clocks and writes to a brother who left in the great flood.\xa0Then an answer comes.What it says "
    "will cost her the lamp, the island, and 300 € that she does not have."
)
LEAD = "“Every lamp,” says the keeper, “is a letter to somebody.” On an island that no ferry serves, Ilse Brandt cou"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("£51.77", (Decimal("51.77"), "GBP")),
        ("Â£51.77", (Decimal("51.77"), "GBP")),
        ("\n  £ 51.77\xa0", (Decimal("51.77"), "GBP")),
        ("£7", (Decimal("7.00"), "GBP")),
        ("£1,234.50", (Decimal("1234.50"), "GBP")),
        ("€12.00", (Decimal("12.00"), "EUR")),
        ("$0.99", (Decimal("0.99"), "USD")),
        ("£99999999.99", (Decimal("99999999.99"), "GBP")),
        ("£100000000.00", None),
        ("51.77", None),
        ("£12,50", None),
        ("£-3.00", None),
        ("£1.234", None),
        ("£", None),
        ("free", None),
        ("£5.00 £4.00", None),
        ("£٣.٠٠", None),
        ("", None),
    ],
)
def test_a_price_is_read_or_refused(found: str, expected: tuple[Decimal, str] | None) -> None:
    assert price(found) == expected


@pytest.mark.parametrize(
    ("found", "currency", "expected"),
    [
        ("51.77", "GBP", (Decimal("51.77"), "GBP")),
        ("51.7", " gbp ", (Decimal("51.70"), "GBP")),
        ("1,234", "USD", (Decimal("1234.00"), "USD")),
        ("12.00 CHF", None, (Decimal("12.00"), "CHF")),
        ("EUR 9.99", "EUR", (Decimal("9.99"), "EUR")),
        ("£9.99", "GBP", (Decimal("9.99"), "GBP")),
        ("£9.99", "USD", None),
        ("1.000", "EUR", None),
        ("9.99", "pounds", None),
        ("9.99", "", None),
        ("1e3", "USD", None),
    ],
)
def test_a_price_whose_currency_stands_apart_is_read_or_refused(
    found: str, currency: str | None, expected: tuple[Decimal, str] | None
) -> None:
    assert price(found, currency) == expected


@pytest.mark.parametrize(
    ("found", "expected"), [("3", 3), ("4.0", 4), ("4.5", 5), ("3.87", 4), ("0", None), ("5.1", None)]
)
def test_a_rating_in_digits_is_rounded_to_stars(found: str, expected: int | None) -> None:
    assert rating(found) == expected


def test_the_sources_own_key_comes_before_the_upc() -> None:
    assert clean([replace(RAW, source_id="b-7")]).books[0].source_id == "b-7"
    assert clean([replace(RAW, source_id="b-7", upc=None)]).applied == {}


@pytest.mark.parametrize(
    ("found", "expected"),
    [("One", 1), ("Two", 2), (" three ", 3), ("FOUR", 4), ("Five", 5), ("Zero", None), ("Six", None), ("", None)],
)
def test_a_rating_is_a_number_of_stars(found: str, expected: int | None) -> None:
    assert rating(found) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("\n   In stock (22 available)\n", (22, True)),
        ("In stock (1 available)", (1, True)),
        ("In stock (0 available)", (0, False)),
        ("In stock", (None, True)),
        ("Out of stock", (0, False)),
        ("Unavailable", (0, False)),
        ("22", (22, True)),
        ("0", (0, False)),
        ("yes", (None, True)),
        ("false", (0, False)),
        ("In stock (many available)", None),
        ("In stock (99999999999 available)", None),
        ("perhaps", None),
    ],
)
def test_availability_becomes_stock(found: str, expected: tuple[int | None, bool] | None) -> None:
    assert stock(found) == expected


@pytest.mark.parametrize(("found", "expected"), [("0", 0), (" 12 ", 12), ("-1", None), ("1e3", None), ("9" * 10, None)])
def test_a_count_fits_a_database_integer(found: str, expected: int | None) -> None:
    assert count(found) == expected


@pytest.mark.parametrize(
    "found",
    [
        f"{LEAD} {WHOLE} ...more",
        f"{LEAD} {WHOLE} ...more\n",
        f"{LEAD.replace(' ', '', 3)} {WHOLE} ...more",
        f"{LEAD} {WHOLE} ...more".replace("counts", "co\xadunts"),
        f"{LEAD} \ufeff{WHOLE} ...more",
        f"{WHOLE.replace('€ ', '')} {WHOLE} ...more",
        f"{WHOLE} {WHOLE} ...more",
    ],
    ids=["plain", "newline", "lead lost spaces", "soft hyphen", "byte order mark", "lead lost a sign", "lead is all"],
)
def test_a_repeated_lead_goes_and_the_rest_stays_as_found(found: str) -> None:
    applied: Counter[str] = Counter()
    cleaned = description(found, applied)
    assert cleaned is not None
    assert found.rstrip().removesuffix(" ...more").endswith(cleaned)
    assert cleaned.replace("\xad", "").removeprefix("\ufeff") == WHOLE
    assert applied == {'description: repeated lead and "...more" removed': 1}


@pytest.mark.parametrize(
    "found",
    [
        WHOLE,
        f"{WHOLE} ...more",
        f"{LEAD} {WHOLE}",
        f"{LEAD} Or so they say. {WHOLE} ...more",
        f"{LEAD.replace('keeper', 'sailor')} {WHOLE} ...more",
        f"{LEAD}{WHOLE} ...more",
        "Row, row, row your boat ...more",
        "Ha! Ha! ...more",
        "...more",
        "short ...more",
        "ab" * 5000 + " ...more",
    ],
)
def test_nothing_is_removed_where_the_beginning_does_not_stand_twice(found: str) -> None:
    applied: Counter[str] = Counter()
    assert description(found, applied) == found
    assert not applied


def test_a_hostile_description_does_not_take_long() -> None:
    applied: Counter[str] = Counter()
    assert description("a " * 500_000 + "...more", applied)


@pytest.mark.parametrize("found", [None, "", " \n "])
def test_no_description_is_none(found: str | None) -> None:
    cleaned = clean([replace(RAW, description=found)])
    assert cleaned.books[0].description is None and not cleaned.applied


def test_a_row_comes_out_typed() -> None:
    (book,) = clean([RAW]).books
    assert (book.source_id, book.upc, book.title) == ("a897fe39b1053632", "a897fe39b1053632", "The Lamp at Low Water")
    assert (book.price, book.currency, book.rating) == (Decimal("51.77"), "GBP", 3)
    assert (book.stock, book.in_stock, book.num_reviews) == (22, True, 0)
    assert (book.category, book.category_name, book.seen_at) == ("travel", "Travel", RAW.seen_at)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"title": None}, "title: there is none"),
        ({"title": " \n"}, "title: ' \\n'"),
        ({"price": None}, "price: there is none"),
        ({"price": "ask us"}, "price: 'ask us'"),
    ],
)
def test_a_row_without_a_required_field_is_rejected_with_what_stood_there(change: dict[str, Any], reason: str) -> None:
    cleaned = clean([replace(RAW, **change), replace(RAW, url="http://shop.test/b", upc="b")])
    assert [book.upc for book in cleaned.books] == ["b"]
    (rejected,) = cleaned.rejected
    assert (rejected.reason, rejected.url, rejected.category) == (reason, RAW.url, "travel")


@pytest.mark.parametrize(
    ("change", "counted"),
    [
        ({"rating": "Eleven"}, "rating: unreadable, left out"),
        ({"num_reviews": "some"}, "num_reviews: unreadable, left out"),
        ({"availability": "ask"}, "availability: unreadable, taken as not in stock"),
        ({"availability": None}, "availability: unreadable, taken as not in stock"),
        ({"upc": None}, "upc: none, the address is the key"),
    ],
)
def test_a_field_that_cannot_be_read_is_left_out_and_counted(change: dict[str, Any], counted: str) -> None:
    cleaned = clean([replace(RAW, **change)])
    assert len(cleaned.books) == 1 and cleaned.applied == {counted: 1}


def test_a_book_without_a_upc_has_its_address_as_key() -> None:
    (book,) = clean([replace(RAW, upc=" ")]).books
    assert (book.upc, book.source_id) == (None, RAW.url)


def test_characters_that_postgres_cannot_hold_are_removed() -> None:
    cleaned = clean([replace(RAW, title="The\x00 Lamp", description="half \ud83d a face\x00")])
    assert (cleaned.books[0].title, cleaned.books[0].description) == ("The Lamp", "half  a face")
    assert cleaned.applied == {
        "title: characters that cannot be stored removed": 1,
        "description: characters that cannot be stored removed": 1,
    }


@pytest.mark.parametrize("address", ["https://x/a\x00b", "https://x/a\ud800b"])
def test_the_address_of_a_rejected_row_can_be_stored_too(address: str) -> None:
    (rejected,) = clean([replace(RAW, url=address, price="call us")]).rejected
    assert rejected.url == "https://x/ab"


def test_two_books_under_one_key_are_told_apart_from_one_page_kept_twice() -> None:
    cleaned = clean([RAW, RAW, replace(RAW, url="http://shop.test/other")])
    assert len(cleaned.books) == 1
    assert cleaned.applied == {"row: the same page once more, left out": 1}
    assert cleaned.rejected[0].reason == f"key: 'a897fe39b1053632' is that of {RAW.url} too"


@pytest.mark.skipif(not REAL_BOOKS.exists(), reason="the real shop's books are not at hand")
def test_on_the_real_shop_943_leads_go_and_every_text_stays_whole() -> None:
    with REAL_BOOKS.open(encoding="utf-8", newline="\n") as lines:
        texts = [text for line in lines if (text := json.loads(line)["description"])]
    applied: Counter[str] = Counter()
    untouched = 0
    for text in texts:
        cleaned = description(text, applied)
        assert cleaned is not None
        if cleaned == text:
            untouched += 1
            continue
        lead, space, rest = text.removesuffix(f"{cleaned} ...more").rpartition(" ")
        assert space and not rest and text == f"{lead} {cleaned} ...more"
        assert letters(cleaned).startswith(letters(lead))
        assert 360 <= len(lead) <= 380 or letters(lead) == letters(cleaned)
    assert (len(texts), applied.total(), untouched) == (998, 943, 55)


def letters(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum())
