"""What a source may send without costing more than its own page, and what a clock that was ahead leaves behind."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from bookclub_platform.assets.covers import covers_asset
from bookclub_platform.assets.source import source_assets
from bookclub_platform.core.alarms import deliver, put
from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import PageRejected, SourceError
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.progress import NoProgress
from bookclub_platform.core.settings import load_settings
from bookclub_platform.local.doctor._data import crawl as crawl_findings
from bookclub_platform.models._judge import _series
from bookclub_platform.resources import BooksDatabase, DataFolder
from bookclub_platform.sources import ID_TIME, Fetcher, Page, PageArchive, crawl_category, latest, read_raw_books
from bookclub_platform.sources._kinds import BrokenSource
from bookclub_platform.sources.books_toscrape import MOST_CATEGORIES, BooksToScrape
from bookclub_platform.sources.json_api import JsonApi
from bookclub_platform_tests.kinds_fixtures import API_FIELDS, FIELDS, PAGINGS, answering, as_csv, rows, source_of
from bookclub_platform_tests.test_alarms import ALARM, Sink
from bookclub_platform_tests.test_tables import BOOK

ADDRESS = "http://shop.test"
TRAVEL = Category("travel", "Travel", f"{ADDRESS}/catalogue/category/books/travel_2/index.html")
DIGITS = "9" * 5_000  # more than `int` reads


def page(body: str, kind: Any = "listing", **headers: str) -> Page:
    return Page(f"{ADDRESS}/api?page=1", 200, tuple(headers.items()), body.encode(), kind, datetime.now(UTC))


@contextmanager
def at_once(seconds: float = 10) -> Iterator[None]:
    """What takes the square of the inputs below takes hours."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


def api(folder: Path, paging: str) -> JsonApi:
    source = source_of(f"kind: json_api\naddress: {ADDRESS}/api\nnext: {paging}{API_FIELDS}", folder)
    assert isinstance(source, JsonApi)
    return source


def test_a_page_of_comments_without_end_is_read_at_once() -> None:
    book = '<article><div class="product_main"><h1>The Salt Road</h1></div>'
    body = f"<html>{book}{'<!--' * 1_000_000}</html>"
    with at_once():
        (row,) = BooksToScrape(ADDRESS).rows(page(body, "book"), TRAVEL)
    assert row.title == "The Salt Road"


def test_a_listing_with_a_number_of_5000_digits_is_read_without_it() -> None:
    link = '<h3><a href="a_1/index.html">A</a></h3>'
    body = f'<html><form class="form-horizontal"><strong>{DIGITS}</strong></form>{link}</html>'
    listing = BooksToScrape(ADDRESS).listing(page(body))
    assert (len(listing.book_urls), listing.expected) == (1, None)


@pytest.mark.parametrize(
    "paging", ["{by: page, pages: meta.pages}", "{by: page, parameter: n, pages: meta.pages}", PAGINGS["url"]]
)
def test_an_api_with_numbers_of_5000_digits_is_read_without_them(tmp_path: Path, paging: str) -> None:
    body = {"found": {"items": [{"id": 1}], "total": DIGITS}, "meta": {"pages": DIGITS}}
    source = api(tmp_path, paging)
    assert source.listing(page(json.dumps(body))).expected is None
    led_there = Page(f"{ADDRESS}/api?n={DIGITS}", 200, (), json.dumps(body).encode(), "listing", datetime.now(UTC))
    source.listing(led_there)


@pytest.mark.parametrize("paging", [PAGINGS["url"], PAGINGS["cursor"]])
def test_a_next_page_with_half_a_character_costs_that_page_alone(tmp_path: Path, paging: str) -> None:
    body = {"found": {"items": [], "total": 0}, "meta": {"link": "/api?at=\ud800", "next": "\ud800"}}
    with pytest.raises(PageRejected):
        api(tmp_path, paging).listing(page(json.dumps(body)))


def test_a_table_with_a_date_that_python_does_not_know_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    dates = pa.array([2**31 - 1], pa.int32()).cast(pa.date32())
    pq.write_table(pa.table({"ISBN": ["1"], "Title": ["A"], "Price": [1.0], "Genre": dates}), buffer)
    (tmp_path / "books.parquet").write_bytes(buffer.getvalue())
    source = source_of(
        "kind: table_file\naddress: books.parquet\nfields: {source_id: ISBN, title: Title, price: Price, "
        "category: Genre}\nconstants: {currency: GBP}",
        tmp_path,
    )
    with source.fetcher() as fetcher, pytest.raises(PageRejected, match="is no Parquet file that can be read"):
        list(source.rows(fetcher.fetch(source.address, "listing"), source.categories(fetcher)[0]))


def home(*categories: str) -> bytes:
    links = "".join(f'<a href="/catalogue/category/books/{name}/index.html">{name}</a>' for name in categories)
    return f'<html><div class="side_categories">{links}</div></html>'.encode()


def test_a_category_whose_name_fits_no_folder_is_left_out_and_the_others_are_crawled(tmp_path: Path) -> None:
    body = home(f"{'long-' * 60}x_1", "travel_2")
    with (
        answering(lambda path, _: (body, {}) if path == "/" else None) as address,
        Fetcher(delay_s=0, concurrency=1) as fetcher,
    ):
        shop = BooksToScrape(address)
        found = shop.categories(fetcher)
        reports = [crawl_category(shop, category, fetcher, tmp_path, "20251121T090807Z") for category in found]
    assert [report.category for report in reports] == ["travel"]


def test_a_home_page_with_thousands_of_categories_is_refused() -> None:
    lists = {"/": home(*(f"shelf-{at}_{at}" for at in range(MOST_CATEGORIES)))}
    with answering(lambda path, _: (lists[path], {}) if path in lists else None) as address:
        shop = BooksToScrape(address)
        with Fetcher(delay_s=0, concurrency=1) as fetcher:
            assert len(shop.categories(fetcher)) == MOST_CATEGORIES
            lists["/"] = home(*(f"shelf-{at}_{at}" for at in range(20_000)))
            with pytest.raises(SourceError, match=r"lists 20,000 categories; at most 1,000 are accepted"):
                shop.categories(fetcher)


def test_a_file_with_a_space_in_its_name_is_not_stored_again_while_it_is_the_same(tmp_path: Path) -> None:
    name = "my books, 100% of the crème #1.csv"
    (tmp_path / name).write_bytes(as_csv(rows()))
    source = source_of(f'kind: table_file\naddress: "{name}"\nformat: csv{FIELDS}', tmp_path)
    with source.fetcher() as fetcher:
        (category,) = source.categories(fetcher)
        first, second = (
            crawl_category(source, category, fetcher, tmp_path / "raw", f"2025112{day}T090807Z") for day in (1, 2)
        )
    assert (first.is_complete, first.unchanged) == (second.is_complete, 0) and second.unchanged == 1
    read, rejected = read_raw_books(source, category.slug, second.path)
    assert len(read) == len(rows()) and not rejected


@pytest.mark.parametrize("header", ["<" * 1_000_000, "</a>;rel=" + " " * 1_000_000, '</a>; rel="' + "a " * 500_000])
def test_a_link_header_of_any_kind_is_read_at_once(tmp_path: Path, header: str) -> None:
    source = api(tmp_path, PAGINGS["link"])
    with at_once():
        assert source.listing(page('{"found": {"items": []}}', Link=header)).next_url is None


@pytest.mark.parametrize(
    "header",
    [
        "</api?page=2>; rel=next",
        '</a>; rel="first", </api?page=2>;title="b" ; REL = "prev Next"; type=x, </c>; rel=last',
        "</a;b>; rel=nextish, </api?page=2>; rel=next , </c>",
    ],
)
def test_the_next_page_of_a_link_header_is_found(tmp_path: Path, header: str) -> None:
    listing = api(tmp_path, PAGINGS["link"]).listing(page('{"found": {"items": []}}', Link=header))
    assert listing.next_url == f"{ADDRESS}/api?page=2"


def test_a_series_is_looked_for_in_a_long_title_at_once() -> None:
    assert _series("The Salt Road (Tides , #2) (Lamps Vol. 3) (Book 4) (not one) (#5") == {"tides", "lamps"}
    with at_once():
        for title in ("( " + " " * 1_000_000 + "x", "(" * 1_000_000, "(" + "#1" * 500_000, "(" + "#  " * 300_000 + ")"):
            _series(title)


def test_the_covers_of_a_source_that_cannot_be_used_fail_with_the_reason(tmp_path: Path) -> None:
    broken = BrokenSource("shelf", "sources.yaml", "line 3: kind: is missing", has_categories=False)
    done = dg.materialize(
        [covers_asset(broken)],
        resources={"files": DataFolder(home=str(tmp_path)), "progress": NoProgress()},
        raise_on_error=False,
    )
    assert not done.success
    assert "line 3: kind: is missing" in reason_of(done)


def reason_of(done: dg.ExecuteInProcessResult) -> str:
    (failure,) = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    return str(failure.step_failure_data.error_display_string)


LATER = timedelta(days=300)


def test_what_was_crawled_while_the_clock_was_ahead_ends_the_crawl_until_it_is_mended(
    tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKCLUB_SOURCES", str(tmp_path / "sources.yaml"))
    monkeypatch.setenv("BOOKCLUB_FILES", str(tmp_path))
    (tmp_path / "books.csv").write_bytes(as_csv(rows()))
    source = source_of(f"kind: table_file\naddress: books.csv{FIELDS}", tmp_path)
    files, later = DataFolder(home=str(tmp_path)), datetime.now(UTC) + LATER
    with source.fetcher() as fetcher:
        (category,) = source.categories(fetcher)
        ahead = crawl_category(source, category, fetcher, files.raw, f"{later:{ID_TIME}}-0").path
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    book = replace(BOOK, source=source.name, seen_at=later)
    with engine.begin() as connection:
        load_category(connection, source.name, None, "ahead", [book], [], later)

    def crawl() -> dg.ExecuteInProcessResult:
        resources = {"files": files, "database": BooksDatabase(), "progress": NoProgress()}
        return dg.materialize(source_assets(source)[:1], resources=resources, raise_on_error=False)

    assert "stored crawl of the future (1 in all)" in reason_of(crawl())
    assert len(list(ahead.parent.glob("*.warc.gz"))) == 1, "nothing is fetched that nobody would read"
    ahead.unlink()

    reason = reason_of(crawl())
    assert "has books that were seen in the future" in reason
    (finding,) = crawl_findings(load_settings(database_url=database_url))
    assert not finding.is_well and "shelf 300 days ahead of now" in finding.text and finding.mend in reason
    with engine.begin() as connection:
        connection.execute(sa.text(finding.mend[finding.mend.index("UPDATE") :]))

    assert crawl().success and crawl_findings(load_settings(database_url=database_url))[0].is_well
    with engine.begin() as connection:
        now = datetime.now(UTC)
        cheaper = replace(book, price=BOOK.price / 2, seen_at=now)
        assert load_category(connection, source.name, None, "now", [cheaper], [], now).updated == 1


def test_a_killed_crawl_of_the_future_is_not_resumed(tmp_path: Path) -> None:
    ahead = datetime.now(UTC) + LATER
    with PageArchive(tmp_path, "shop", TRAVEL, f"{ahead:{ID_TIME}}-0") as archive:
        archive.append(replace(page("a"), fetched_at=ahead))
    now = f"{datetime.now(UTC):{ID_TIME}}-0"
    with PageArchive(tmp_path, "shop", TRAVEL, now) as archive:
        assert not archive.resumed
        archive.finish(is_complete=True)
    crawl = latest(tmp_path, "shop", TRAVEL.slug)
    assert crawl is not None and crawl.crawl_id == now


def test_an_alarm_that_was_queued_while_the_clock_was_ahead_holds_no_other_up(database_url: str) -> None:
    engine, sink, now = sa.create_engine(database_url, poolclass=sa.NullPool), Sink(), datetime.now(UTC)
    with engine.begin() as connection:
        put(connection, [replace(ALARM, id="ahead")], now + LATER)
        put(connection, [replace(ALARM, id="now")], now)
    assert deliver(engine, sink, now).delivered == 2 and sink.taken == ["ahead", "now"]
