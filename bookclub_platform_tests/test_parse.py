"""Pages -> rows, by this process and by workers: the same rows, in the order of the pages."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from bookclub_platform.core.book import Category, RawBook, RejectedBook
from bookclub_platform.sandbox import generate
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sources import Kind, Page, _parse, books_toscrape
from bookclub_platform.sources._archive import KeptPage
from bookclub_platform.sources._parse import parse_pages
from bookclub_platform.sources._warc import Place
from bookclub_platform.sources.books_toscrape import BooksToScrape

ADDRESS = "http://127.0.0.1:1"
ALL = Category("all", "All", f"{ADDRESS}/all/")
BOOKS = 400
shop = BooksToScrape(ADDRESS)


def page(path: str, body: bytes, kind: Kind = "book") -> Page:
    return Page(f"{ADDRESS}/{path}", 200, (), body, kind, datetime.now(UTC))


@pytest.fixture(scope="module")
def pages() -> list[KeptPage]:
    """Book pages of the sandbox; the third is no book page, and a listing is among them."""
    catalogue = generate(BOOKS, seed=1)
    served = Shop(catalogue)
    found = []
    for book in catalogue.books:
        made = served.page(f"catalogue/{book.path}")
        assert made is not None
        found.append(page(f"catalogue/{book.path}", made.body))
    found[2] = replace(found[2], body=b"<html><body>Out of order</body></html>")
    found.insert(10, page("index.html", b"<html></html>", "listing"))
    return [KeptPage(page, Place(Path("shop/all/crawl.warc.gz"), at)) for at, page in enumerate(found)]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(_parse, "WITHOUT_WORKERS", 50)


def without_workers(pages: list[KeptPage]) -> list[RawBook | RejectedBook]:
    assert len(pages) < _parse.WITHOUT_WORKERS
    return list(parse_pages(shop, pages, ALL))


def test_each_book_page_gives_one_row_in_order_and_a_bad_one_its_reason(pages: list[KeptPage]) -> None:
    rows = without_workers(pages)
    assert [row.url for row in rows] == [kept.page.url for kept in pages if kept.page.kind == "book"]
    assert [row.raw_page for row in rows] == [kept.name for kept in pages if kept.page.kind == "book"]
    assert [type(row) for row in rows[:4]] == [RawBook, RawBook, RejectedBook, RawBook]
    assert isinstance(rows[2], RejectedBook)
    assert (rows[2].category, rows[2].seen_at) == ("all", pages[2].page.fetched_at) and "no book page" in rows[2].reason


def test_the_lean_tree_is_the_one_that_beautifulsoup_builds_by_itself(pages: list[KeptPage]) -> None:
    texts = [kept.page.body.decode() for kept in pages[:40]]
    torn = [text[: len(text) * 2 // 3] for text in texts[:10]]
    crooked = [
        "",
        "<p>",
        "</div><p>a<p>b</i></p>c",
        "<table><th>a<td>b</table><p x=1>no</p>x<!-- c --><p>d<b>e",
        "<p>\0&lt;&nbsp;",
    ]
    for only in (books_toscrape._BOOK, books_toscrape._LISTING, books_toscrape._SIDEBAR):
        for text in [*texts, *torn, *crooked]:
            plain = BeautifulSoup(text, "lxml", parse_only=only)
            assert str(books_toscrape._soup(text, only)) == str(plain)
    assert "product_main" in str(books_toscrape._soup(texts[0], books_toscrape._BOOK))


def test_workers_give_the_same_rows_in_the_same_order(pages: list[KeptPage], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_workers(pages)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(_parse, "WITHOUT_WORKERS", 50)
    assert list(parse_pages(shop, pages, ALL)) == expected


def test_a_small_category_starts_no_worker(pages: list[KeptPage], two_cores: None) -> None:
    assert len(list(parse_pages(shop, pages[:50], ALL))) == 49
    assert not multiprocessing.active_children()


def test_pages_are_read_only_a_little_ahead_of_the_rows(pages: list[KeptPage], two_cores: None) -> None:
    read = 0

    def endless() -> Iterator[KeptPage]:
        nonlocal read
        while True:
            for one in pages:
                read += 1
                yield one

    rows = parse_pages(shop, endless(), ALL)
    for _ in range(60):
        next(rows)
    assert multiprocessing.active_children()
    assert read < 60 + 10 * _parse._CHUNK
    rows.close()
    assert not multiprocessing.active_children()


def test_a_process_that_may_have_no_children_parses_by_itself(
    pages: list[KeptPage], two_cores: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    rows = parse_pages(shop, pages, ALL)
    assert len([next(rows) for _ in range(BOOKS)]) == BOOKS
    assert not multiprocessing.active_children()
