"""Page -> raw page -> clean row over real HTTP: the sandbox shop always, the real shop where it is at hand."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from bookclub_platform.cleaning import Cleaned, clean
from bookclub_platform.core.book import Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError
from bookclub_platform.core.settings import Settings
from bookclub_platform.sandbox import generate, running
from bookclub_platform.sources import (
    CrawlReport,
    FailedPage,
    Fetcher,
    Page,
    Patience,
    Source,
    Unchanged,
    crawl_category,
    latest,
    read_raw_books,
    sources,
)
from bookclub_platform.sources._crawl import _is_settled
from bookclub_platform.sources._politeness import retry_after_s
from bookclub_platform_tests.local_http import served

SHARED_SHOP = Path(__file__).parents[2] / "shared" / "shop"
needs_real_shop = pytest.mark.skipif(not SHARED_SHOP.exists(), reason="the real shop's pages are not at hand")
CRAWL = "20251121T090807Z"


@dataclass
class Crawled:
    shop: Source
    categories: list[Category]
    reports: list[CrawlReport]
    raw_books: list[RawBook]
    rejected: list[RejectedBook]
    cleaned: dict[str, Cleaned]

    @property
    def books(self) -> list[Any]:
        return [book for cleaned in self.cleaned.values() for book in cleaned.books]


def shop_at(address: str) -> Source:
    (shop,) = sources(Settings(shop_url=address))
    return shop


def crawled(address: str, folder: Path) -> Crawled:
    """All of a shop, category by category, as the assets do it."""
    shop = shop_at(address)
    with Fetcher(delay_s=0, concurrency=8) as fetcher:
        categories = list(shop.categories(fetcher))
        reports = [crawl_category(shop, category, fetcher, folder, CRAWL) for category in categories]
    result = Crawled(shop, categories, reports, [], [], {})
    for report in reports:
        raw_books, rejected = read_raw_books(shop, report.category, report.path)
        result.raw_books += raw_books
        result.rejected += rejected
        result.cleaned[report.category] = clean(raw_books)
    return result


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawled]:
    command = [sys.executable, str(SHARED_SHOP / "serve.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1].rstrip("/")
            yield crawled(address, tmp_path_factory.mktemp("real"))
        finally:
            server.terminate()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawled]:
    with running(books=300, seed=7) as address:
        yield crawled(address, tmp_path_factory.mktemp("sandbox"))


@needs_real_shop
def test_the_real_shop_comes_whole_and_equal_in_every_field(real: Crawled) -> None:
    with (SHARED_SHOP / "books.jsonl").open(encoding="utf-8", newline="\n") as lines:
        expected = {row["upc"]: row for row in map(json.loads, lines)}
    found = {book.upc: book for book in real.books}
    raw = {book.upc: book for book in real.raw_books}
    assert len(real.books) == len(expected) == 1000 and found.keys() == expected.keys() == raw.keys()
    for upc, row in expected.items():
        book = found[upc]
        assert (book.source, book.source_id, book.title) == ("books_toscrape", upc, row["title"])
        assert (book.category, book.category_name) == (row["category_slug"], row["category"])
        assert (book.price, book.currency) == (Decimal(str(row["price_gbp"])), "GBP")
        assert (book.rating, book.stock, book.in_stock) == (row["rating"], row["stock"], True)
        assert book.num_reviews == row["num_reviews"]
        assert book.url == f"{real.shop.address}/{row['url_path']}"
        assert book.image_url == f"{real.shop.address}/{row['image_path']}"
        assert raw[upc].description == (row["description"] or None)
        if row["description"]:
            assert row["description"] == book.description or row["description"].endswith(f" {book.description} ...more")
        else:
            assert book.description is None


@needs_real_shop
def test_the_real_shops_figures_are_right(real: Crawled) -> None:
    books = real.books
    assert len(real.categories) == 50 and not real.rejected
    assert not [row for cleaned in real.cleaned.values() for row in cleaned.rejected]
    assert sum(book.price for book in books) == Decimal("35070.35")
    assert Counter(book.rating for book in books) == {1: 226, 2: 196, 3: 203, 4: 179, 5: 196}
    assert sum(book.stock for book in books) == 8585
    assert sum(book.description is not None for book in books) == 998
    assert len([book for book in books if book.title == "The Star-Touched Queen"]) == 2
    assert not [book for book in books if re.search("Â|Ã", book.title)]
    applied = sum((cleaned.applied for cleaned in real.cleaned.values()), Counter[str]())
    assert applied == {'description: repeated lead and "...more" removed': 943}


@needs_real_shop
def test_the_reports_of_the_real_shop_add_up(real: Crawled) -> None:
    assert all(report.is_complete and not report.failed for report in real.reports)
    assert sum(report.pages for report in real.reports) == 1080
    assert sum(report.books for report in real.reports) == 1000
    assert sum(report.requests for report in real.reports) == 1080 and not any(r.retries for r in real.reports)
    assert sum((Counter(report.statuses) for report in real.reports), Counter[int]()) == {200: 1080}
    default = next(report for report in real.reports if report.category == "default")
    assert (default.pages, default.books) == (160, 152)
    assert default.bytes > 1_000_000 and default.seconds > 0 and default.path.stat().st_size < default.bytes


def test_every_book_of_the_sandbox_comes_out_as_it_was_made(sandbox: Crawled) -> None:
    catalogue = generate(300, 7)
    found = {book.upc: book for book in sandbox.books}
    assert len(sandbox.books) == len(found) == 300 and not sandbox.rejected
    for made in catalogue.books:
        book = found[made.upc]
        assert (book.title, book.rating, book.stock) == (made.title, made.rating, made.stock)
        assert book.price == Decimal(made.price_pence) / 100
        assert book.url == f"{sandbox.shop.address}/catalogue/{made.path}"
        assert book.image_url == f"{sandbox.shop.address}/{made.cover}"
        description = catalogue.description(made)
        assert description == (book.description or "") or description.endswith(f" {book.description} ...more")
    assert {len(catalogue.members[at]) for at, _ in catalogue.genres} == {
        len(c.books) for c in sandbox.cleaned.values()
    }


def test_every_category_of_the_sandbox_is_complete_and_is_the_latest(sandbox: Crawled) -> None:
    assert len(sandbox.categories) == 50
    for category, report in zip(sandbox.categories, sandbox.reports, strict=True):
        crawl = latest(report.path.parents[2], "books_toscrape", category.slug)
        assert crawl is not None and crawl.is_complete and report.is_complete
        assert (crawl.category, crawl.path, crawl.crawl_id) == (category, report.path, CRAWL)


def test_pages_of_another_category_are_refused(sandbox: Crawled) -> None:
    with pytest.raises(PermanentSourceError, match="holds category"):
        read_raw_books(sandbox.shop, "no-such", sandbox.reports[0].path)


# A shop of files that a test may break: one category of three pages with a book each.

PAGE = "<html><body>{}</body></html>"
LISTING = '<form class="form-horizontal"><strong>{count}</strong> results.</form>{links}<ul class="pager">{next}</ul>'
BOOK = """<article class="product_page"><div class="product_main"><h1>Book {n}</h1><p class="price_color">£{n}.50</p>
<p class="availability">In stock</p></div><table><tr><th>UPC</th><td>upc{n}</td></tr></table></article>
<h2>Products you recently viewed</h2><div class="product_main"><h1>Another</h1><p class="price_color">£9.99</p></div>"""
FOLDER = "catalogue/category/books/travel_2"


@pytest.fixture
def pages() -> dict[str, str | bytes]:
    sidebar = f'<div class="side_categories"><a href="{FOLDER}/index.html">\n Travel\n </a></div>'
    files: dict[str, str | bytes] = {"index.html": PAGE.format(sidebar)}
    for n in (1, 2, 3):
        link = f'<h3><a href="../../../book_{n}/index.html">B...</a></h3>'
        following = f'<li class="next"><a href="page-{n + 1}.html">next</a></li>' if n < 3 else ""
        name = "index.html" if n == 1 else f"page-{n}.html"
        files[f"{FOLDER}/{name}"] = PAGE.format(LISTING.format(count=3, links=link, next=following))
        files[f"catalogue/book_{n}/index.html"] = PAGE.format(BOOK.format(n=n))
    return files


class Files(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def serving_files(folder: Path, files: dict[str, str | bytes]) -> Iterator[str]:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with served(partial(Files, directory=str(folder))) as address:
        yield address


def crawl_travel(
    address: str,
    folder: Path,
    on_page: Callable[[Page | Unchanged | FailedPage], None] | None = None,
    crawl_id: str = CRAWL,
) -> tuple[CrawlReport, list[RawBook], list[RejectedBook]]:
    shop = shop_at(address)
    with Fetcher(delay_s=0, concurrency=2, patience=Patience(backoff_base_s=0.01, backoff_cap_s=0.05)) as fetcher:
        (category,) = shop.categories(fetcher)
        report = crawl_category(shop, category, fetcher, folder, crawl_id, on_page)
    return report, *read_raw_books(shop, "travel", report.path)


def reasons(report: CrawlReport) -> str:
    return "; ".join(f"{page.url.rsplit('/', 2)[-2]}: {page.reason}" for page in report.failed)


def test_a_whole_small_shop_is_a_complete_crawl_and_its_progress_is_told(
    tmp_path: Path, pages: dict[str, str | bytes]
) -> None:
    seen: list[Page | Unchanged | FailedPage] = []
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, rejected = crawl_travel(address, tmp_path, seen.append)
    assert report.is_complete and (report.pages, report.books, report.failed) == (6, 3, [])
    assert sorted(str(book.title) for book in raw_books) == ["Book 1", "Book 2", "Book 3"] and not rejected
    assert Counter(page.kind for page in seen) == {"listing": 3, "book": 3}


def test_a_book_that_is_gone_is_reported_and_the_others_are_kept(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    del pages["catalogue/book_2/index.html"]
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and "book_2: the shop answers 404" in reasons(report)
    assert sorted(str(book.title) for book in raw_books) == ["Book 1", "Book 3"]
    crawl = latest(tmp_path, "books_toscrape", "travel")
    assert crawl is not None and not crawl.is_complete


def test_a_listing_page_that_is_gone_makes_the_crawl_incomplete(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    del pages[f"{FOLDER}/page-2.html"]
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and "the shop answers 404" in reasons(report)
    assert [book.title for book in raw_books] == ["Book 1"]


def test_a_listing_that_says_more_than_it_links_makes_the_crawl_incomplete(
    tmp_path: Path, pages: dict[str, str | bytes]
) -> None:
    last = pages[f"{FOLDER}/page-3.html"]
    assert isinstance(last, str)
    pages[f"{FOLDER}/page-3.html"] = last.replace("<strong>3<", "<strong>5<")
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and "says 5 books and links 3" in reasons(report)
    assert len(raw_books) == 3


def test_a_pager_that_leads_in_a_circle_ends(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    second = pages[f"{FOLDER}/page-2.html"]
    assert isinstance(second, str)
    pages[f"{FOLDER}/page-2.html"] = second.replace("page-3.html", "index.html")
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and "in a circle" in reasons(report)
    assert len(raw_books) == 2


def test_a_date_alone_is_believed_only_of_a_page_that_was_old_when_it_came(
    tmp_path: Path, pages: dict[str, str | bytes]
) -> None:
    with serving_files(tmp_path / "www", pages) as address:  # Last-Modified is the file's, and there is no ETag
        crawl_travel(address, tmp_path, crawl_id="1")
        assert crawl_travel(address, tmp_path, crawl_id="2")[0].unchanged == 0
        for path in (tmp_path / "www").rglob("*.html"):
            os.utime(path, (1_500_000_000, 1_500_000_000))
        crawl_travel(address, tmp_path, crawl_id="3")
        assert crawl_travel(address, tmp_path, crawl_id="4")[0].unchanged == 6


def test_a_pager_without_end_ends(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    link = '<h3><a href="../../../book_1/index.html">B...</a></h3>'
    for n in range(1, 9):
        following = f'<li class="next"><a href="page-{n + 1}.html">next</a></li>'
        name = "index.html" if n == 1 else f"page-{n}.html"
        pages[f"{FOLDER}/{name}"] = PAGE.format(LISTING.format(count=1, links=link, next=following))
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and len(raw_books) == 1 and report.pages == 5
    assert "bring no new book" in report.failed[0].reason


@pytest.mark.parametrize("body", [b"<html><body>Sorry!</body></html>", PAGE.format(LISTING)[:40].encode(), b"\xff"])
def test_a_listing_that_is_none_makes_the_crawl_incomplete_and_is_kept(
    tmp_path: Path, pages: dict[str, str | bytes], body: bytes
) -> None:
    pages[f"{FOLDER}/page-2.html"] = body
    with serving_files(tmp_path / "www", pages) as address:
        report, _, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and (report.pages, report.books) == (3, 1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (PAGE.format("<h1>Sorry, something went wrong</h1>").encode(), "no book page"),
        (PAGE.format(BOOK.format(n=2)).encode()[:150], "cut short"),
        (PAGE.format("£").encode("latin-1"), "no book page"),
    ],
)
def test_a_page_that_is_no_book_is_rejected_with_the_reason(
    tmp_path: Path, pages: dict[str, str | bytes], body: bytes, reason: str
) -> None:
    pages["catalogue/book_2/index.html"] = body
    with serving_files(tmp_path / "www", pages) as address:
        report, raw_books, rejected = crawl_travel(address, tmp_path)
    assert report.is_complete and len(raw_books) == 2
    assert [(row.url, row.category) for row in rejected] == [(f"{address}/catalogue/book_2/index.html", "travel")]
    assert reason in rejected[0].reason


def test_a_link_that_is_no_address_costs_that_page_and_nothing_else(
    tmp_path: Path, pages: dict[str, str | bytes]
) -> None:
    home, second, book = pages["index.html"], pages[f"{FOLDER}/page-2.html"], pages["catalogue/book_1/index.html"]
    assert isinstance(home, str) and isinstance(second, str) and isinstance(book, str)
    pages["index.html"] = home.replace("<a href", '<a href="http://[x">Broken</a><a href', 1)
    pages[f"{FOLDER}/page-2.html"] = second.replace("../../../book_2", "http://[x")
    image = '<div id="product_gallery"><img src="http://[x"></div><div class="product_main"'
    pages["catalogue/book_1/index.html"] = book.replace('<div class="product_main"', image, 1)
    assert pages["catalogue/book_1/index.html"] != book
    with serving_files(tmp_path / "www", pages) as address:
        for crawl_id in ("1", "2"):
            report, raw_books, rejected = crawl_travel(address, tmp_path, crawl_id=crawl_id)
            assert not report.is_complete and "not an address" in reasons(report)
            assert [row.image_url for row in raw_books] == [None] and not rejected


@pytest.mark.parametrize("moment", ["Mon, 99999999999999999999 Jan 2024 00:00:00 GMT", "no date"])
def test_a_date_that_no_calendar_has_is_none(moment: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    page = Page("http://shop.example/x", 200, (("Last-Modified", moment),), b"", "book", now)
    assert not _is_settled(moment, page)
    assert retry_after_s(moment, now) is None


def test_links_that_leave_the_shop_are_reported_and_not_followed(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    second = pages[f"{FOLDER}/page-2.html"]
    assert isinstance(second, str)
    with serving_files(tmp_path / "elsewhere", pages) as other:
        pages[f"{FOLDER}/page-2.html"] = second.replace("../../../book_2", f"{other}/catalogue/book_2")
        with serving_files(tmp_path / "www", pages) as address:
            report, raw_books, _ = crawl_travel(address, tmp_path)
    assert not report.is_complete and "leads away" in reasons(report)
    assert sorted(str(book.title) for book in raw_books) == ["Book 1", "Book 3"]


def test_a_crawl_can_be_run_again_in_the_same_process(tmp_path: Path, pages: dict[str, str | bytes]) -> None:
    with serving_files(tmp_path / "www", pages) as address:
        first, second = (crawl_travel(address, tmp_path, crawl_id=f"2025112{n}") for n in range(2))
    assert first[0].is_complete and second[0].is_complete and len(first[1]) == len(second[1]) == 3


def test_a_shop_that_is_down_is_a_clear_error_that_names_the_setting(tmp_path: Path) -> None:
    with serving_files(tmp_path, {}) as address:
        pass
    shop = shop_at(address)
    started = time.monotonic()
    with Fetcher(delay_s=0, concurrency=2) as fetcher:
        with pytest.raises(ShopUnavailable, match="BOOKCLUB_SHOP_URL"):
            shop.categories(fetcher)
        with pytest.raises(ShopUnavailable):
            crawl_category(shop, Category("travel", "Travel", f"{address}/x"), fetcher, tmp_path, CRAWL)
    assert time.monotonic() - started < 4
    assert latest(tmp_path, "books_toscrape", "travel") is None


def test_an_address_that_is_no_such_shop_is_a_clear_error_that_names_the_setting(tmp_path: Path) -> None:
    with (
        serving_files(tmp_path, {"index.html": "<html><body>It works!</body></html>"}) as address,
        Fetcher(delay_s=0, concurrency=2) as fetcher,
        pytest.raises(SourceError, match="BOOKCLUB_SHOP_URL"),
    ):
        shop_at(address).categories(fetcher)


def test_importing_the_sources_neither_connects_nor_loads_dagster() -> None:
    script = (
        "import socket, sys; socket.socket.connect = None; "
        "import bookclub_platform.cleaning; from bookclub_platform.sources import sources; "
        "from bookclub_platform.core.settings import Settings; sources(Settings()); "
        "assert not {'dagster', 'mlflow', 'sqlalchemy', 'pandas', 'pyarrow', 'selenium'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=Path(__file__).parents[1])
