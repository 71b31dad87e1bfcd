"""report/: rows -> one page. What it says of numbers, what it does with a hostile shop, what its pictures hold."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from bookclub_platform.report import Facts, drawn, figures, pictures, render, svg

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOSTILE = "</title><script>alert(1)</script> $x$ \x0b\u202e 日本 & \"quoted\" 'too'"
NOISE = np.random.default_rng(7)


def facts(**changes: Any) -> Facts:
    """A catalogue of 200 books whose prices and ratings are drawn apart."""
    usual = Facts(
        made_at=NOON,
        data_version="7",
        api_url="http://127.0.0.1:8000",
        currency="GBP",
        other_currencies={},
        overview={
            "listed": 200,
            "delisted": 1,
            "in_stock": 150,
            "categories": 2,
            "sources": ["shop"],
            "first_seen_at": NOON,
            "last_seen_at": NOON,
            "observations": 400,
            "rejected": 0,
        },
        missing={"upc": 0, "rating": 3, "description": 2},
        price=NOISE.uniform(10, 60, 200),
        rating=NOISE.integers(1, 6, 200).astype(float),
        stock=NOISE.integers(0, 23, 200).astype(float),
        characters=NOISE.integers(0, 2000, 200).astype(float),
        categories=[category("travel", 150), category("default", 50)],
        placeholders=["default"],
        longest=[text("Long", 2000)],
        shortest=[text("None", 0)],
        same_titles=[],
        same_descriptions=[],
        price_days=[],
        price_moves=[],
        last_crawls=[],
        rejects=[],
        newest_rejects=[],
    )
    return replace(usual, **changes)


def category(slug: str, books: int, name: str | None = None) -> dict[str, Any]:
    figures = {
        "books": books,
        "books_in_stock": books,
        "median_price": 35.5,
        "mean_rating": None,
        "without_description": 0,
    }
    return {"category": slug, "category_name": name or slug.title()} | figures


def text(title: str, characters: int, url: str = "http://shop/1") -> dict[str, Any]:
    return {"id": 1, "title": title, "category_name": "Travel", "url": url, "characters": characters}


class Seen(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, attribute: str) -> list[str]:
        return [attributes[attribute] or "" for _, attributes in self.tags if attribute in attributes]


def test_prices_and_ratings_drawn_apart_are_told_to_hold_no_signal() -> None:
    found = facts().price_and_rating
    assert found.n == 200 and found.verdict == "no signal"
    assert found.low < 0 < found.high and found.p > 0.05
    assert "No signal" in Seen(render(facts())).text


def test_a_planted_relation_is_found_with_its_sign() -> None:
    rating = NOISE.integers(1, 6, 500).astype(float)
    dearer, cheaper = rating * 5 + NOISE.normal(0, 4, 500), -rating * 5 + NOISE.normal(0, 4, 500)
    up, down = (figures.association(price, rating, "price", "rating") for price in (dearer, cheaper))
    assert (up.verdict, down.verdict) == ("signal", "signal")
    assert up.low > 0.5 and "rise together" in up.sentence
    assert down.high < -0.5 and "opposite" in down.sentence


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    misses = 0
    for _ in range(400):
        left = NOISE.normal(size=60)
        right = 0.5 * left + math.sqrt(0.75) * NOISE.normal(size=60)
        found = figures.association(left, right, "left", "right")
        truth = 6 / math.pi * math.asin(0.5 / 2)  # Spearman's rho of a normal pair with correlation 0.5
        misses += not found.low <= truth <= found.high
    assert 6 <= misses <= 40  # 20 of 400 are expected; four standard deviations are 17


def test_a_sure_but_tiny_relation_is_called_of_no_use() -> None:
    rating = NOISE.integers(1, 6, 40_000).astype(float)
    price = rating * 0.05 + NOISE.normal(size=40_000)
    assert figures.association(price, rating, "price", "rating").verdict == "weak"


@pytest.mark.parametrize("rating", [np.full(50, 3.0), np.full(50, np.nan), np.array([1.0, 2.0] + [np.nan] * 48)])
def test_where_nothing_varies_or_little_is_there_nothing_is_claimed(rating: figures.Numbers) -> None:
    found = figures.association(NOISE.uniform(10, 60, 50), rating, "price", "rating")
    assert found.verdict == "unknown" and found.sentence.startswith("Nothing can be said")


def test_the_page_loads_nothing_from_anywhere_and_has_no_script() -> None:
    page = Seen(render(facts()))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"}
    assert all(source.startswith("data:image/svg+xml;base64,") for source in page.all("src"))
    assert not page.all("style") and not [name for _, given in page.tags for name in given if name.startswith("on")]
    (policy,) = (given["content"] for tag, given in page.tags if given.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_what_a_shop_writes_stays_text() -> None:
    row = text(HOSTILE, 5, url="javascript:alert(1)")
    reject = {
        "source": "s",
        "category": HOSTILE,
        "reason": HOSTILE,
        "url": row["url"],
        "raw_page": None,
        "seen_at": NOON,
    }
    hostile = facts(
        categories=[category(HOSTILE, 3, HOSTILE)],
        longest=[row],
        same_titles=[{"text": HOSTILE, "books": 2, "ids": [1, 2]}],
        rejects=[{"rule": HOSTILE, "pages": 2, "crawls": 1, "last_seen_at": NOON}],
        newest_rejects=[reject],
    )
    page = Seen(render(hostile))
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [address for address in page.all("href") if "javascript" in address]
    assert "<script>alert(1)</script>" in page.text
    for picture in drawn(hostile).values():
        root = ElementTree.fromstring(picture)
        assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    assert "<script>" in "".join(ElementTree.fromstring(drawn(hostile)["books_per_category"]).itertext())


def test_an_empty_catalogue_has_a_page_that_says_so() -> None:
    nothing = np.empty(0)
    none = dict.fromkeys(facts().overview, 0) | {"sources": None, "first_seen_at": None, "last_seen_at": None}
    empty = facts(
        overview=none, price=nothing, rating=nothing, stock=nothing, characters=nothing, categories=[],
        longest=[], shortest=[], missing={"upc": 0},
    )  # fmt: skip
    page = Seen(render(empty)).text
    assert "no listed book" in page and "Nothing can be said of price and rating" in page


def test_prices_in_other_currencies_are_left_out_and_said_to_be() -> None:
    page = Seen(render(facts(other_currencies={"USD": 12}))).text
    assert "12 books in USD" in re.sub(r"\s+", " ", page)


def test_placeholder_categories_count_as_missing() -> None:
    assert "50 books (25.0 %)" in Seen(render(facts())).text


def test_a_category_that_gave_less_or_was_left_out_is_named_with_the_loss() -> None:
    rows = [
        {"source": "shop", "category": name, "crawled_at": at, "seen": seen, "seen_before": before, "rejected": 0}
        for name, at, seen, before in (
            ("travel", NOON, 3, 11),
            ("poetry", NOON, 5, 5),
            ("new", NOON, 5, None),
            ("gone", NOON - timedelta(days=1), 5, 5),
        )
    ]
    page = render(facts(last_crawls=rows))
    table = page[page.index('id="crawl"') : page.index('id="missing"')]
    assert "2 of 4 categories" in table
    assert re.findall(r"<td>(travel|poetry|new|gone)</td>", table) == ["travel", "gone"] and ">-8<" in table


def test_history_and_rejects_are_drawn_where_there_are_any() -> None:
    days = [
        {"day": date(2026, 11, at), "books": 10, "changed": at, "low": 10.0, "median": 20.0 + at, "high": 30.0}
        for at in (1, 2, 3)
    ]
    rejects = [{"rule": "price", "pages": 4, "crawls": 1, "last_seen_at": NOON}]
    found = drawn(facts(price_days=days, rejects=rejects))
    assert {"price_history", "rejects_by_rule"} <= found.keys()
    assert not {"price_history", "rejects_by_rule"} & drawn(facts()).keys()
    texts = list(ElementTree.fromstring(found["price_history"]).itertext())
    assert "01 Nov" in texts and "GBP" in texts
    assert {"price", "4", "pages refused"} <= set(ElementTree.fromstring(found["rejects_by_rule"]).itertext())


def test_every_picture_names_its_axes_with_the_unit() -> None:
    labels = {
        "prices": {"price in GBP", "books"},
        "stars": {"stars", "books"},
        "stock": {"copies in stock", "books"},
        "price_by_stars": {"price in GBP"},
        "books_per_category": {"listed books"},
    }
    found = drawn(facts())
    for name, expected in labels.items():
        assert expected <= set(ElementTree.fromstring(found[name]).itertext()), name


def test_a_histogram_counts_every_value_once() -> None:
    values = NOISE.uniform(10, 60, 333)
    edges, counts = figures.histogram(np.append(values, np.nan), 15)
    assert sum(counts) == 333 and len(edges) == len(counts) + 1
    assert edges[0] <= values.min() and values.max() < edges[-1]
    assert figures.histogram(np.array([5.0, 5.0]), 15)[1] == [2]
    edges, counts = figures.histogram(np.array([0.0, 1.0, 1.0, 3.0]), 15, least_step=1)
    assert (edges, counts) == ([0, 1, 2, 3, 4], [1, 2, 0, 1])


def test_pictures_of_a_category_are_short_enough_to_be_shown_without_a_click() -> None:
    # Dagster hides Markdown of 1,000 characters and more behind a link.
    price, rating, stock = NOISE.uniform(10, 60, 150), NOISE.integers(1, 6, 150), NOISE.integers(0, 23, 150)
    shown = [pictures.prices(price, "GBP"), pictures.stars(rating.astype(float)), pictures.stock(stock.astype(float))]
    assert max(len(svg.data_uri(picture)) for picture in shown) < 950


@pytest.mark.parametrize(("low", "high"), [(0, 1), (10, 60), (0, 0.3), (0, 1e6), (-5, 5), (3, 3)])
def test_ticks_are_round_and_lie_inside(low: float, high: float) -> None:
    found = svg.ticks(low, high, 5)
    assert found and all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)
    assert len(found) <= 12
