"""The parser on pages saved from the real shop (../shared/shop/snapshots), and on pages that are none of a shop."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bookclub_platform.core.book import Category, RawBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.sources import Kind, Page
from bookclub_platform.sources.books_toscrape import BooksToScrape

SHOP = Path(__file__).parents[2] / "shared" / "shop"
ADDRESS = "http://books.toscrape.com"
POETRY = Category("poetry", "Poetry", f"{ADDRESS}/catalogue/category/books/poetry_23/index.html")
needs_snapshots = pytest.mark.skipif(not (SHOP / "snapshots").exists(), reason="no pages of the real shop at hand")
shop = BooksToScrape(ADDRESS)


class Saved:
    """A fetcher that has one page."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def fetch(self, url: str, kind: Kind) -> Page:
        return Page(url, 200, (("Content-Type", "text/html"),), self.body, kind, datetime.now(UTC))


def one(rows: list[RawBook]) -> RawBook:
    (row,) = rows
    return row


def page(body: bytes, path: str = "/", kind: Kind = "listing") -> Page:
    return Saved(body).fetch(ADDRESS + path, kind)


def real_books() -> dict[int, dict[str, object]]:
    with (SHOP / "books.jsonl").open(encoding="utf-8", newline="\n") as lines:
        return {(book := json.loads(line))["id"]: book for line in lines}


@needs_snapshots
@pytest.mark.parametrize("name", ["home.webpoet.html", "home.transistor.html"])
def test_the_saved_home_page_lists_fifty_categories(name: str) -> None:
    found = shop.categories(Saved((SHOP / "snapshots" / name).read_bytes()))
    books = real_books().values()
    expected = {
        (b["category_slug"], b["category"], f"{ADDRESS}/catalogue/category/books/{b['category_slug']}_{b['category_number']}/index.html")  # noqa: E501
        for b in books
    }  # fmt: skip
    assert {(category.slug, category.name, category.url) for category in found} == expected
    assert (len(found), found[0].slug, found[-1].slug) == (50, "travel", "crime")


@needs_snapshots
@pytest.mark.parametrize("name", ["home.webpoet.html", "home.transistor.html"])
def test_the_saved_home_page_lists_its_twenty_books_and_the_next_page(name: str) -> None:
    listing = shop.listing(page((SHOP / "snapshots" / name).read_bytes()))
    books = real_books()
    assert listing.book_urls == tuple(f"{ADDRESS}/{books[n]['url_path']}" for n in range(1000, 980, -1))
    assert (listing.expected, listing.next_url) == (1000, f"{ADDRESS}/catalogue/page-2.html")


@needs_snapshots
def test_the_saved_book_page_gives_every_field() -> None:
    book = real_books()[1000]
    saved = page((SHOP / "snapshots" / "detail_1000.html").read_bytes(), f"/{book['url_path']}", "book")
    raw = one(shop.rows(saved, POETRY))
    assert (raw.upc, raw.title, raw.price) == (book["upc"], book["title"], f"£{book['price_gbp']:.2f}")
    assert (raw.rating, raw.num_reviews) == ("Three", "0")
    assert (raw.availability or "").split() == ["In", "stock", "(22", "available)"]
    assert raw.description == book["description"]
    assert raw.image_url == f"{ADDRESS}/{book['image_path']}"
    assert (raw.category, raw.category_name, raw.url, raw.seen_at) == ("poetry", "Poetry", saved.url, saved.fetched_at)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body><h1>502 Bad Gateway</h1></body></html>",
        b"{}",
        b"\xff\xfe\x00",
        b"<html><body>\x00</body></html>",
    ],
)
def test_a_page_that_is_none_of_the_shop_is_rejected(body: bytes) -> None:
    with pytest.raises(PageRejected):
        shop.listing(page(body))
    with pytest.raises(PageRejected):
        one(shop.rows(page(body, kind="book"), POETRY))
    with pytest.raises(PageRejected):
        shop.categories(Saved(body))


def test_a_home_page_of_something_else_says_what_to_check() -> None:
    with pytest.raises(PageRejected, match="BOOKCLUB_SHOP_URL"):
        shop.categories(Saved(b"<html><body><h1>It works!</h1></body></html>"))


def test_bytes_that_are_not_utf_8_are_read_as_a_browser_reads_them() -> None:
    body = b'<html><body><article><div class="product_main"><p class="price_color">\xa351.77</p></div></article></html>'
    assert one(shop.rows(page(body, kind="book"), POETRY)).price == "£51.77"


def test_fields_that_are_not_there_are_none() -> None:
    body = b'<html><body><article><div class="col-sm-6 product_main"></div></article></body></html>'
    raw = one(shop.rows(page(body, kind="book"), POETRY))
    fields = (
        raw.upc,
        raw.title,
        raw.price,
        raw.rating,
        raw.availability,
        raw.description,
        raw.num_reviews,
        raw.image_url,
    )
    assert fields == (None,) * 8


def test_two_categories_of_one_name_do_not_share_a_slug_and_the_parent_is_none() -> None:
    folders = ["books_1", "books/x_2", "books/x_9"]
    links = "".join(f'<a href="catalogue/category/{folder}/index.html"> X </a>' for folder in folders)
    home = f'<html><body><div class="side_categories">{links}</div></body></html>'.encode()
    assert [category.slug for category in shop.categories(Saved(home))] == ["x", "x-9"]
