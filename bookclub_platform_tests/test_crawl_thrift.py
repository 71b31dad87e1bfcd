"""A crawl after the first asks what has changed, keeps the rest by reference, and knows the pages it must not trust."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core import tables
from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.core.loads import LoadResult
from bookclub_platform.sources import CrawlReport, Fetcher, crawl_category, latest, read_pages, read_raw_books
from bookclub_platform.sources._warc import records
from bookclub_platform_tests.counting_shop import Answer, CountingShop, counting_shop
from bookclub_platform_tests.test_crawl_resume import biggest
from bookclub_platform_tests.whole_walk import shop_at, walked


@pytest.fixture
def shop() -> Iterator[CountingShop]:
    with counting_shop(300) as shop:
        yield shop


def crawled(shop: CountingShop, category: Category, folder: Path, crawl_id: str) -> CrawlReport:
    with Fetcher(delay_s=0, concurrency=4) as fetcher:
        return crawl_category(shop_at(shop.address), category, fetcher, folder, crawl_id)


def book_paths(report: CrawlReport) -> list[str]:
    return [page.url.split("/", 3)[3] for page in read_pages(report.path) if page.kind == "book"]


def state(database: str) -> tuple[list[dict[str, object]], int | None]:
    engine = sa.create_engine(database, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(tables.books).order_by("id")).mappings()
        return [dict(row) for row in rows], connection.scalar(tables.select_data_version())


def test_an_unchanged_shop_sends_a_twentieth_of_the_bytes_and_books_get_the_sighting_alone(
    tmp_path: Path, shop: CountingShop, database_url: str
) -> None:
    category = biggest(shop)
    walked(shop.address, tmp_path, database_url, "1", [category.slug])
    home_bytes = shop.statuses[404] and len(shop.app.answer({"method": "GET", "path": "/", "headers": []})[2])
    first_bytes, (before, version) = shop.sent_bytes - home_bytes, state(database_url)
    shop.forget()
    ((report, result),) = walked(shop.address, tmp_path, database_url, "2", [category.slug])
    after, version_after = state(database_url)

    assert (report.pages, report.unchanged, report.bytes, report.statuses) == (45, 45, 0, {304: 45})
    assert shop.sent_bytes - home_bytes <= 0.05 * first_bytes
    assert result == LoadResult(inserted=0, updated=0, unchanged=42, delisted=0, rejected=0)
    assert version_after == version and len(before) == 42
    for old, new in zip(before, after, strict=True):
        seen_before, seen_after = old.pop("last_seen_at"), new.pop("last_seen_at")
        assert old == new and seen_before < seen_after  # type: ignore[operator]


def test_revisits_lead_to_the_page_itself_however_many_crawls_ago_it_came(tmp_path: Path, shop: CountingShop) -> None:
    category = biggest(shop)
    reports = [crawled(shop, category, tmp_path, crawl_id) for crawl_id in "123"]
    came = {page.url: page for page in read_pages(reports[0].path)}
    for report in reports[1:]:
        revisits = list(records(report.path))[1:-1]
        assert {record.type for record in revisits} == {"revisit"} and len(revisits) == 45
        assert {record.original.path for record in revisits} == {reports[0].path}
        for page in read_pages(report.path):
            assert (page.body, page.headers, page.kind) == (
                came[page.url].body,
                came[page.url].headers,
                came[page.url].kind,
            )
            assert page.status == 200 and page.fetched_at > came[page.url].fetched_at
    crawl = latest(tmp_path, "books_toscrape", category.slug)
    assert crawl is not None and crawl.rests_on == {reports[0].path}
    assert reports[2].path.stat().st_size < reports[0].path.stat().st_size / 3
    command = [sys.executable, "-m", "warcio.cli", "check", "-v", str(reports[2].path)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)


def test_a_changed_page_comes_whole_among_unchanged_ones(tmp_path: Path, shop: CountingShop) -> None:
    category = biggest(shop)
    first = crawled(shop, category, tmp_path, "1")
    path = f"/{book_paths(first)[0]}"
    shop.changed[path] = lambda _: (200, [(b"content-length", b"14")], b"<html> </html>")
    second = crawled(shop, category, tmp_path, "2")
    assert (second.unchanged, second.statuses) == (44, {304: 44, 200: 1, 404: 1})
    changed = {page.url: page for page in read_pages(second.path)}[f"{shop.address}{path}"]
    assert changed.body == b"<html> </html>"


def test_a_page_that_moved_with_its_etag_is_fetched_whole_at_its_new_address(
    tmp_path: Path, shop: CountingShop
) -> None:
    category = biggest(shop)
    path = f"/{book_paths(crawled(shop, category, tmp_path, '1'))[0]}"
    page = shop.app.answer({"method": "GET", "path": path, "headers": []})
    etag = dict(page[1])[b"etag"]
    shop.changed[path] = lambda _: (302, [(b"location", b"/moved.html"), (b"content-length", b"0")], b"")
    answers = [(304, [(b"etag", etag)], b""), page]
    shop.changed["/moved.html"] = lambda _: answers.pop(0)
    second = crawled(shop, category, tmp_path, "2")
    assert (second.is_complete, second.unchanged, second.pages) == (True, 44, 45) and answers == []
    moved = {page.url: page for page in read_pages(second.path)}[f"{shop.address}/moved.html"]
    assert moved.body == page[2]


def test_a_file_that_others_rest_on_is_missed_by_name_and_its_pages_come_again(
    tmp_path: Path, shop: CountingShop
) -> None:
    category = biggest(shop)
    first, second = (crawled(shop, category, tmp_path, crawl_id) for crawl_id in "12")
    first.path.unlink()
    with pytest.raises(PermanentSourceError, match=r"1\.warc\.gz: has no page at"):
        list(read_pages(second.path))
    third = crawled(shop, category, tmp_path, "3")
    assert (third.is_complete, third.unchanged, third.pages) == (True, 0, 45)
    assert len(list(read_pages(third.path))) == 45


def test_a_damaged_last_crawl_does_not_stop_the_next(tmp_path: Path, shop: CountingShop) -> None:
    category = biggest(shop)
    first = crawled(shop, category, tmp_path, "1")
    first.path.write_bytes(first.path.read_bytes()[:-9])
    second = crawled(shop, category, tmp_path, "2")
    assert (second.is_complete, second.unchanged, second.pages) == (True, 0, 45)


def test_a_spoilt_page_is_asked_for_whole_though_its_etag_stands(tmp_path: Path, shop: CountingShop) -> None:
    category = biggest(shop)
    path = f"/{book_paths(crawled(shop, category, tmp_path / 'probe', '0'))[0]}"

    def spoilt(answer: Answer) -> Answer:
        status, headers, _ = answer
        body = b"<html>Sorry, something went wrong</html>"
        other = [(name, value) for name, value in headers if name != b"content-length"]
        return (status, [*other, (b"content-length", str(len(body)).encode())], body) if status == 200 else answer

    shop.changed[path] = spoilt
    first = crawled(shop, category, tmp_path, "1")
    source = shop_at(shop.address)
    books, rejected = read_raw_books(source, category.slug, first.path)
    assert (len(books), [row.url for row in rejected]) == (41, [f"{shop.address}{path}"])
    shop.changed.clear()
    second = crawled(shop, category, tmp_path, "2")
    assert (second.unchanged, second.statuses) == (44, {304: 44, 200: 1, 404: 1})
    assert len(read_raw_books(source, category.slug, second.path)[0]) == 42


def test_the_place_of_a_rejected_page_is_where_warcio_finds_it_after_a_revisit_too(
    tmp_path: Path, shop: CountingShop
) -> None:
    category = biggest(shop)
    for crawl_id in "12":
        report = crawled(shop, category, tmp_path, crawl_id)
        books, _ = read_raw_books(shop_at(shop.address), category.slug, report.path)
        for book in books[:2]:
            file, offset = str(book.raw_page).split("#")
            assert file == f"books_toscrape/{category.slug}/1.warc.gz"
            command = [sys.executable, "-m", "warcio.cli", "extract", "--payload", str(tmp_path / file), offset]
            body = subprocess.run(command, capture_output=True, timeout=60, check=True).stdout
            assert str(book.upc).encode() in body


def test_a_category_with_more_pages_than_the_limit_is_not_complete(tmp_path: Path, shop: CountingShop) -> None:
    source, category = shop_at(shop.address), biggest(shop)
    with Fetcher(delay_s=0, concurrency=4) as fetcher:
        report = crawl_category(source, category, fetcher, tmp_path, "1", max_pages=25)
    assert not report.is_complete and "more than 25 pages" in report.failed[0].reason
    assert 25 <= report.pages <= 25 + 20


def test_the_timings_tell_of_each_request_when_and_how_long_and_how_it_ended(
    tmp_path: Path, shop: CountingShop
) -> None:
    category = biggest(shop)
    report = crawled(shop, category, tmp_path, "1")
    assert len(report.timings) == report.requests == 46  # robots.txt among them
    assert sorted(status for _, _, status in report.timings) == [200] * 45 + [404]
    assert all(at >= 0 and 0 < latency_s < at + latency_s <= report.seconds for at, latency_s, _ in report.timings)
