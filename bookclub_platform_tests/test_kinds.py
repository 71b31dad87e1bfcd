"""Every kind of source under one contract: the same catalogue, whatever it is read from, comes out as the same rows."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest

from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import Book, Category, RawBook, RejectedBook
from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable
from bookclub_platform.sources import CrawlReport, Page, Patience, Source, crawl_category, read_pages, read_raw_books
from bookclub_platform.sources._browser import Browser, BrowserFetcher
from bookclub_platform.sources._contract import Unchanged, Validators
from bookclub_platform.sources._web import Web
from bookclub_platform_tests.kinds_fixtures import (
    API_FIELDS,
    BOOKS,
    FIELDS,
    PAGINGS,
    SEED,
    answering,
    api,
    as_csv,
    as_json_lines,
    as_parquet,
    having,
    needs_browser,
    rows,
    running,
    source_of,
)

CRAWL = "20251121T090807Z"
KINDS = [
    "books_toscrape",
    pytest.param("rendered_shop", marks=needs_browser),
    *(f"table_file {way}{form}" for way in ("", "web ") for form in ("csv", "jsonl", "parquet")),
    *(f"json_api {paging}" for paging in PAGINGS),
]
Crawled = tuple[list[Category], list[CrawlReport], list[RawBook], list[RejectedBook]]


def crawled(source: Source, folder: Path) -> Crawled:
    with source.fetcher() as fetcher:
        categories = list(source.categories(fetcher))
        reports = [crawl_category(source, category, fetcher, folder / "raw", CRAWL) for category in categories]
    raw_books, rejected = [], []
    for report in reports:
        books, refused = read_raw_books(source, report.category, report.path)
        raw_books += books
        rejected += refused
    return categories, reports, raw_books, rejected


@pytest.fixture(params=KINDS)
def any_kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Source, int]]:
    with having(request.param, tmp_path) as found:
        yield found


def test_a_source_of_any_kind_gives_the_same_rows(any_kind: tuple[Source, int], tmp_path: Path) -> None:
    source, books = any_kind
    categories, reports, raw_books, rejected = crawled(source, tmp_path)
    assert not rejected and all(report.is_complete for report in reports), [report.failed for report in reports]
    assert source.has_categories or [category.slug for category in categories] == ["shelf"]
    assert sum(report.books for report in reports) == books

    cleaned = clean(raw_books)
    expected = {row["ISBN"]: row for row in rows(books)}
    found = {book.source_id: book for book in cleaned.books}
    assert not cleaned.rejected and found.keys() == expected.keys()
    for key, row in expected.items():
        assert facts(found[key]) == (
            "shelf", row["Title"], re.sub(r"\W+", "-", row["Genre"].lower()), row["Genre"],
            Decimal(str(row["Price"])), "GBP", row["Stars"], row["Stock"], True,
        )  # fmt: skip
        assert (found[key].description is None) == (row["About"] is None)

    again = pickle.loads(pickle.dumps(source))  # worker processes are handed the source
    assert read_raw_books(again, reports[0].category, reports[0].path)[0] == raw_books[: reports[0].books]


def facts(book: Book) -> tuple[Any, ...]:
    return (
        book.source, book.title, book.category, book.category_name, book.price, book.currency, book.rating, book.stock,
        book.in_stock,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["csv", "jsonl"])
def test_rows_that_lack_what_a_book_needs_are_rejected_with_their_line(tmp_path: Path, way: str) -> None:
    table = rows()
    table[2]["Title"] = "  "
    table[4]["Price"], table[4]["ISBN"] = None, None
    table[0]["Title"] = "A title"
    (tmp_path / f"books.{way}").write_bytes({"csv": as_csv, "jsonl": as_json_lines}[way](table))
    _, reports, raw_books, rejected = crawled(
        source_of(f"kind: table_file\naddress: books.{way}{FIELDS}", tmp_path), tmp_path
    )
    assert (len(raw_books), reports[0].is_complete) == (BOOKS - 2, True)
    first = 2 if way == "csv" else 1
    reasons = [row.reason for row in rejected]
    assert reasons == [f"line {first + 2}: has no title", f"line {first + 4}: has no price, no source_id"]
    assert rejected[0].url == f"file:books.{way}#line={first + 2}"


def test_a_row_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    table = rows()[:3]
    table[0]["About"] = "one\ntwo\nthree"
    table[1]["Title"] = ""
    (tmp_path / "books.csv").write_bytes(as_csv(table) + b"a,b,c,d,e,f,g,h\n")
    *_, rejected = crawled(source_of(f"kind: table_file\naddress: books.csv{FIELDS}", tmp_path), tmp_path)
    assert [row.reason for row in rejected] == ["line 5: has no title", "line 7: has 8 cells under 7 columns"]


def test_a_line_that_is_no_json_object_is_rejected_and_the_others_stand(tmp_path: Path) -> None:
    (tmp_path / "books.jsonl").write_bytes(b'{"Title": \n\n[1]\n' + as_json_lines(rows()))
    *_, raw_books, rejected = crawled(source_of(f"kind: table_file\naddress: books.jsonl{FIELDS}", tmp_path), tmp_path)
    assert len(raw_books) == BOOKS
    assert ["line 1: is no JSON" in rejected[0].reason, rejected[1].reason] == [
        True,
        "line 3: is no row with fields, but list",
    ]


@pytest.mark.parametrize(
    ("name", "body", "reason"),
    [
        ("books.csv", b"ISBN;Title\n1;A\n", "has no column ISBN, Title, Price"),
        ("books.csv", b"<html>Sign in</html>", "has no column"),
        ("books.csv", b"", "its columns: none"),
        ("books.csv", as_csv(rows()).replace(b"Title", "T\xeftle".encode("latin-1")), "line 1 is not utf-8"),
        ("books.csv", as_csv(rows()) + b'"open', "is no CSV from line"),
        ("books.parquet", b"PAR1 but no more", "is no Parquet file"),
        ("books.parquet", as_parquet(rows())[:-200], "is no Parquet file"),
    ],
)
def test_a_file_of_another_layout_is_refused_as_a_whole(tmp_path: Path, name: str, body: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(body)
    source = source_of(f"kind: table_file\naddress: {name}{FIELDS}", tmp_path)
    _, (report,), _, rejected = crawled(source, tmp_path)
    assert not report.is_complete and reason in report.failed[0].reason
    assert [reason in row.reason for row in rejected] == [True]
    assert [page.body for page in read_pages(report.path)] == [body]


def test_a_spreadsheet_of_another_country_is_read_by_its_settings(tmp_path: Path) -> None:
    text = "ISBN;Title;Price;Genre\n7;Être là;1.234,50;Poésie\n8;Nada;9,00;\n"
    (tmp_path / "books.csv").write_bytes(text.encode("windows-1252"))
    entry = """kind: table_file
        address: books.csv
        encoding: windows-1252
        delimiter: ";"
        decimal: ","
        fields: {source_id: ISBN, title: Title, price: Price, category: Genre}
        constants: {currency: EUR, availability: in stock}
        categories: {poésie: Poetry}"""
    *_, raw_books, rejected = crawled(source_of(entry, tmp_path), tmp_path)
    books = clean(raw_books).books
    assert not rejected
    assert [(book.title, book.price, book.currency) for book in books] == [
        ("Être là", Decimal("1234.50"), "EUR"),
        ("Nada", Decimal("9.00"), "EUR"),
    ]
    assert [(book.category, book.category_name) for book in books] == [("poetry", "Poetry"), ("shelf", "Shelf")]
    assert all(book.in_stock and book.stock is None for book in books)


def test_a_published_sheet_may_redirect_to_the_hosts_that_are_named_and_to_no_other(tmp_path: Path) -> None:
    with (
        answering(lambda path, _: (as_csv(rows()), {}) if path == "/sheet" else None) as store,
        answering(lambda path, _: (b"", {"Location": f"{store}/sheet"}) if path == "/pub" else None) as address,
    ):
        entry = f"kind: table_file\naddress: {address}/pub\nformat: csv{FIELDS}"
        _, (report,), _, _ = crawled(source_of(entry, tmp_path / "a"), tmp_path / "a")
        assert "another host" in report.failed[0].reason
        *_, raw_books, _ = crawled(source_of(f"{entry}\nredirects_to: ['{store}']", tmp_path / "b"), tmp_path / "b")
    assert len(raw_books) == BOOKS


def test_a_link_that_is_no_web_address_never_reaches_the_table(tmp_path: Path) -> None:
    rows = b"id,t,p,u\n1,A,1.00,javascript:alert(1)\n2,B,2.00,https://shop.test/b\n"
    (tmp_path / "books.csv").write_bytes(rows)
    entry = "kind: table_file\naddress: books.csv\nfields: {source_id: id, title: t, price: p, url: u, image_url: u}"
    *_, raw_books, _ = crawled(source_of(entry, tmp_path), tmp_path)
    assert [(row.url, row.image_url) for row in raw_books] == [
        ("file:books.csv#line=2", None),
        ("https://shop.test/b", "https://shop.test/b"),
    ]


def test_a_file_is_read_below_its_folder_alone(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("ISBN\n")
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "books.csv").symlink_to(tmp_path / "secret.csv")
    _, (report,), _, _ = crawled(source_of(f"kind: table_file\naddress: books.csv{FIELDS}", folder), tmp_path)
    assert "leads out of" in report.failed[0].reason
    (folder / "books.csv").unlink()
    _, (report,), _, _ = crawled(source_of(f"kind: table_file\naddress: books.csv{FIELDS}", folder), tmp_path / "b")
    assert "BOOKCLUB_FILES" in report.failed[0].reason


def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "books.csv"
    path.write_bytes(as_csv(rows()))
    source = source_of(f"kind: table_file\naddress: books.csv{FIELDS}", tmp_path)
    with source.fetcher() as fetcher:
        page = fetcher.fetch(source.address, "listing")
        known = Validators(dict(page.headers)["ETag"], None)
        assert isinstance(fetcher.fetch(source.address, "listing", known), Unchanged)
        path.write_bytes(as_csv(rows()[:-1]))
        assert isinstance(fetcher.fetch(source.address, "listing", known), Page)
        assert fetcher.counters().requests == 3


def test_the_next_crawl_of_an_unchanged_file_keeps_that_it_is_so_and_has_the_same_rows(tmp_path: Path) -> None:
    (tmp_path / "books.csv").write_bytes(as_csv(rows()))
    source = source_of(f"kind: table_file\naddress: books.csv{FIELDS}", tmp_path)
    _, (first,), raw_books, _ = crawled(source, tmp_path)
    with source.fetcher() as fetcher:
        (category,) = source.categories(fetcher)
        second = crawl_category(source, category, fetcher, tmp_path / "raw", "20251122T090807Z")
    assert (first.unchanged, second.unchanged, second.bytes, second.statuses) == (0, 1, 0, {304: 1})
    assert (second.books, second.is_complete, len(second.timings)) == (BOOKS, True, 1)
    again, _ = read_raw_books(source, category.slug, second.path)
    assert [book.source_id for book in again] == [book.source_id for book in raw_books]


def test_an_api_of_many_pages_is_read_to_its_end(tmp_path: Path) -> None:
    with answering(api(rows(), per_page=4)) as address:
        entry = f"kind: json_api\naddress: {address}/link\nnext: {PAGINGS['link']}{API_FIELDS}"
        _, (report,), raw_books, _ = crawled(source_of(entry, tmp_path), tmp_path)
    assert (len(raw_books), report.pages, report.is_complete) == (BOOKS, 7, True)


def test_an_api_that_says_more_than_it_gives_is_incomplete(tmp_path: Path) -> None:
    whole = api(rows())

    def short(path: str, query: dict[str, list[str]]) -> tuple[bytes, dict[str, str]] | None:
        found = whole(path, query)
        return found and (found[0].replace(b'"total": 25', b'"total": 99'), found[1])

    with answering(short) as address:
        entry = f"kind: json_api\naddress: {address}/cursor\nnext: {PAGINGS['cursor']}{API_FIELDS}"
        _, (report,), raw_books, _ = crawled(source_of(entry, tmp_path), tmp_path)
    assert len(raw_books) == BOOKS and "says 99 books and links 25" in report.failed[0].reason


def test_an_api_that_leads_in_a_circle_or_elsewhere_ends(tmp_path: Path) -> None:
    for at, link in enumerate(["/url?at=0", "http://169.254.169.254/latest"]):

        def answer(path: str, query: dict[str, list[str]], link: str = link) -> tuple[bytes, dict[str, str]] | None:
            body = {"found": {"items": [], "total": 0}, "meta": {"link": link}}
            return (json.dumps(body).encode(), {}) if path == "/url" else None

        with answering(answer) as address:
            entry = f"kind: json_api\naddress: {address}/url\nnext: {PAGINGS['url']}{API_FIELDS}"
            _, (report,), _, _ = crawled(source_of(entry, tmp_path / str(at)), tmp_path / str(at))
        assert ["in a circle", "leads away"][at] in report.failed[0].reason


@pytest.mark.parametrize("paging", ["size: 10", "pages: meta.pages"])
def test_page_numbers_end_where_the_api_says_and_no_page_beyond_is_asked(tmp_path: Path, paging: str) -> None:
    asked, whole = list[str](), api(rows())

    def answer(path: str, query: dict[str, list[str]]) -> tuple[bytes, dict[str, str]] | None:
        asked.extend(query.get("page", []))
        found = whole(path, query)
        return found and (found[0].replace(b'"meta": {', b'"meta": {"pages": 3, '), found[1])

    with answering(answer) as address:
        entry = f"kind: json_api\naddress: {address}/page\nnext: {{by: page, first: 0, {paging}}}{API_FIELDS}"
        *_, raw_books, _ = crawled(source_of(entry, tmp_path), tmp_path)
    assert len(raw_books) == BOOKS and asked == ["0", "1", "2"]


@pytest.mark.parametrize(
    "body", [b"<html>Sign in</html>", b'{"found": {}}', b'{"found": {"items": {}}}', b"[" * 100_000 + b"]"]
)
def test_an_answer_that_is_no_list_is_refused_and_kept(tmp_path: Path, body: bytes) -> None:
    with answering(lambda path, _: (body, {}) if path == "/x" else None) as address:
        source = source_of(f"kind: json_api\naddress: {address}/x{API_FIELDS}", tmp_path)
        _, (report,), _, rejected = crawled(source, tmp_path)
    assert not report.is_complete and len(rejected) == 1 and [p.body for p in read_pages(report.path)] == [body]


def test_a_shops_categories_are_called_as_the_mapping_says(tmp_path: Path) -> None:
    with running(BOOKS, SEED) as address:
        plain = source_of(f"kind: books_toscrape\naddress: {address}", tmp_path)
        with plain.fetcher() as fetcher:
            theirs = plain.categories(fetcher)
        mapping = f"categories: {{{theirs[0].name}: Our Own, {theirs[1].slug}: Two}}"
        entry = f"kind: books_toscrape\naddress: {address}\n{mapping}"
        mapped = source_of(entry, tmp_path)
        with mapped.fetcher() as fetcher:
            ours = mapped.categories(fetcher)
    assert [(c.slug, c.name) for c in ours[:2]] == [("our-own", "Our Own"), ("two", "Two")]
    assert [c.url for c in ours] == [c.url for c in theirs] and ours[2:] == theirs[2:]


def test_a_shop_rendered_by_javascript_is_nothing_to_the_plain_kind(tmp_path: Path) -> None:
    with running(BOOKS, SEED, is_script=True) as address:
        source = source_of(f"kind: books_toscrape\naddress: {address}", tmp_path)
        with source.fetcher() as fetcher, pytest.raises(PermanentSourceError, match="no categories"):
            source.categories(fetcher)


@needs_browser
def test_a_browser_goes_through_navigation_and_pager_by_clicks_and_to_no_other_host() -> None:
    asked = list[str]()
    pages = {
        "/": "<ol class=row>1</ol><a href=/two>next</a><script>fetch('http://127.0.0.1:PORT/stolen')</script>",
        "/gone": "<ol class=row>404</ol>",
        "/late": "<script>setTimeout(() => { document.body.innerHTML = '<ol class=row>late</ol>' }, 300)</script>",
        "/never": "<p>Sorry, something went wrong</p>",
    }
    # The link is followed by the page itself: nobody but a visitor who clicks gets to see /two.
    pages["/"] += """<script>document.querySelector('a').onclick = (event) => { event.preventDefault();
        history.pushState(null, '', '/two'); setTimeout(() => {
        document.querySelector('ol').textContent = '2' }, 200); }</script>"""

    def answer(path: str, _: dict[str, list[str]]) -> tuple[bytes, dict[str, str]] | None:
        asked.append(path)
        page = pages.get(path)
        return (f"<html><body>{page}</body></html>".encode(), {"Content-Type": "text/html"}) if page else None

    with answering(answer) as at:
        address = at.replace("127.0.0.1", "localhost")
        pages["/"] = pages["/"].replace("PORT", at.rpartition(":")[2])
        patience = Patience(backoff_base_s=0.01, attempts=2)
        with BrowserFetcher(Browser(address, "ol.row", 2), Web(delay_s=0, patience=patience)) as fetcher:
            assert b">1<" in fetcher.fetch(f"{address}/", "listing").body
            second = fetcher.fetch(f"{address}/two", "listing")
            assert b">2<" in second.body and second.url == f"{address}/two"
            assert b"late" in fetcher.fetch(f"{address}/late", "book").body
            started = time.monotonic()
            assert b"something went wrong" in fetcher.fetch(f"{address}/never", "book").body
            assert 1.9 < time.monotonic() - started < 10
            with pytest.raises(PermanentSourceError, match="404"):
                fetcher.fetch(f"{address}/missing", "book")
            fetcher._chrome.service.process.kill()
            assert b">1<" in fetcher.fetch(f"{address}/", "listing").body
            for program in fetcher._programs():
                program.kill()
            assert b">1<" in fetcher.fetch(f"{address}/", "listing").body
            profile = fetcher._profile.name
    assert profile not in str([program.info for program in psutil.process_iter(["cmdline"])])
    assert "/two" not in asked and "/stolen" not in asked


@needs_browser
def test_the_pager_of_a_rendered_shop_is_clicked_and_nothing_is_loaded_anew(tmp_path: Path) -> None:
    with running(BOOKS, SEED, is_script=True) as address:
        source = source_of(f"kind: rendered_shop\naddress: {address}", tmp_path)
        with source.fetcher() as fetcher:
            assert isinstance(fetcher, BrowserFetcher)
            first = source.listing(fetcher.fetch(f"{address}/index.html", "listing"))
            fetcher._chrome.execute_script("window.isTheSame = true")
            second = source.listing(fetcher.fetch(str(first.next_url), "listing"))
            assert fetcher._chrome.execute_script("return window.isTheSame")
    assert first.expected == BOOKS == len({*first.book_urls, *second.book_urls}) and second.next_url is None


@needs_browser
def test_a_browser_obeys_robots_txt_and_a_dead_shop_is_told_at_once() -> None:
    rules = b"User-agent: *\nDisallow: /"
    with (
        answering(lambda path, _: (rules, {}) if path == "/robots.txt" else None) as address,
        BrowserFetcher(Browser(address, "ol", 2), Web(delay_s=0)) as fetcher,
    ):
        with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
            fetcher.fetch(f"{address}/", "listing")
        assert fetcher.counters().requests == 0
    with BrowserFetcher(Browser(address, "ol", 2), Web(delay_s=0)) as fetcher, pytest.raises(ShopUnavailable):
        fetcher.fetch(f"{address}/", "listing")


def test_a_machine_without_a_browser_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    source = source_of("kind: rendered_shop\naddress: http://127.0.0.1:1", tmp_path)
    with pytest.raises(PermanentSourceError, match="install Debian's chromium"), source.fetcher():
        pass
    assert shutil.which("chromium") is None and os.environ["PATH"] == str(tmp_path)
