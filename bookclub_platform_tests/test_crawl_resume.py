"""A crawl that is killed is taken up by the next; two at once do not disturb each other."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core import loads, tables
from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import CrawlUnderWay, PermanentSourceError
from bookclub_platform.sources import Fetcher, PageArchive, crawl_category, latest, read_pages
from bookclub_platform.sources._lock import only_crawl
from bookclub_platform.sources._warc import records
from bookclub_platform_tests.counting_shop import CountingShop, counting_shop
from bookclub_platform_tests.test_archive import PAGES, TRAVEL, kept
from bookclub_platform_tests.whole_walk import CONCURRENCY, shop_at, walked

BOOKS = 300
COLUMNS = [*loads._KEY, *loads._CONTENT, "delisted_at"]


@pytest.fixture(scope="module")
def shop() -> Iterator[CountingShop]:
    with counting_shop(BOOKS) as shop:
        yield shop


def biggest(shop: CountingShop) -> Category:
    """The category with most books: 42, on three listing pages."""
    with Fetcher(delay_s=0, concurrency=1) as fetcher:
        categories = {category.name: category for category in shop_at(shop.address).categories(fetcher)}
    catalogue = shop.app.shop.catalogue
    return categories[max(catalogue.genres, key=lambda genre: len(catalogue.members[genre[0]]))[1].name]


def books_in(database: str) -> list[sa.Row]:
    engine = sa.create_engine(database, poolclass=sa.NullPool)
    with engine.connect() as connection:
        chosen = sa.select(*(tables.books.c[name] for name in COLUMNS)).order_by("source_id")
        return list(connection.execute(chosen))


def whole_urls(part: Path) -> list[str]:
    urls = []
    try:
        for record in records(part):
            urls += [record.url] if record.type in {"response", "revisit"} else []
    except PermanentSourceError:
        pass  # its torn end
    return urls


def test_a_walk_killed_three_times_ends_with_the_same_books_and_asks_for_no_page_twice(
    tmp_path: Path, shop: CountingShop, database_url: str
) -> None:
    category = biggest(shop)
    walked(shop.address, tmp_path / "whole", database_url, "1", [category.slug])
    expected, pages = books_in(database_url), 42 + 3
    with sa.create_engine(database_url).begin() as connection:
        connection.execute(sa.text("TRUNCATE bookclub.books, bookclub.loads CASCADE"))

    shop.forget()
    kept_before: list[str] = []
    for number in range(4):
        asked_before = shop.requests.copy()
        command = [sys.executable, "-m", "bookclub_platform_tests.whole_walk"]
        arguments = [shop.address, str(tmp_path / "killed"), database_url, f"2-{number}", category.slug]
        child = subprocess.Popen([*command, *arguments], cwd=Path(__file__).parents[1])
        fatal = shop.requests.total() + random.randint(5, 12)
        shop.on_request = partial(_kill_at, child, fatal if number < 3 else 0)
        assert child.wait(60) == (0 if number == 3 else -signal.SIGKILL)
        again = [url for url in kept_before if shop.requests[_path(url)] > asked_before[_path(url)]]
        assert again == []
        kept_before = [url for part in tmp_path.rglob("*.part") for url in whole_urls(part)]

    assert books_in(database_url) == expected and len(expected) == 42
    in_flight = 3 * (2 * CONCURRENCY + 1)
    assert shop.requests.total() <= pages + 4 * len(["/", "/robots.txt"]) + in_flight
    crawl = latest(tmp_path / "killed", "books_toscrape", category.slug)
    assert crawl is not None and crawl.is_complete and crawl.crawl_id.startswith("2-")
    urls = [page.url for page in read_pages(crawl.path)]
    assert len(urls) == len(set(urls)) == pages


def _kill_at(child: subprocess.Popen[bytes], fatal: int, count: int) -> None:
    if count == fatal:
        child.kill()


def _path(url: str) -> str:
    return "/" + url.split("/", 3)[3]


def test_what_was_kept_before_the_end_is_told_apart(tmp_path: Path, shop: CountingShop) -> None:
    source, category = shop_at(shop.address), biggest(shop)

    class Stop(Exception):
        pass

    def stop_at_20(_: object, seen: list[int] = [0]) -> None:  # noqa: B006
        seen[0] += 1
        if seen[0] == 20:
            raise Stop

    with Fetcher(delay_s=0, concurrency=2) as fetcher, pytest.raises(Stop):
        crawl_category(source, category, fetcher, tmp_path, "1", stop_at_20)
    with Fetcher(delay_s=0, concurrency=2) as fetcher:
        report = crawl_category(source, category, fetcher, tmp_path, "2")
    assert (report.crawl_id, report.resumed, report.pages, report.books) == ("1", 20, 45, 42)
    assert report.is_complete and report.requests == len(report.timings) == 26  # robots.txt among them


def test_a_part_torn_anywhere_is_taken_up_with_the_pages_that_came_whole(tmp_path: Path) -> None:
    path = kept(tmp_path)
    whole = path.read_bytes()
    ends = [record.end for record in records(path)]
    part = path.with_name(f"{path.name}.part")
    for length in [*range(0, len(whole), 41), *ends]:
        path.unlink(missing_ok=True)
        part.write_bytes(whole[:length])
        came = sum(end <= length for end in ends[1:-1])
        with PageArchive(tmp_path, "shop", TRAVEL, "20251122T0", timedelta(days=10_000)) as archive:
            assert [(url, kind) for url, (kind, _) in archive.resumed.items()] == [
                (p.url, p.kind) for p in PAGES[:came]
            ]
            assert archive.crawl_id == ("20251121T090807Z" if length >= ends[0] else "20251122T0")
            for page in PAGES[came:]:
                archive.append(page)
            ended = archive.finish(is_complete=True)
        assert list(read_pages(ended)) == PAGES
        assert not list(tmp_path.rglob("*.part"))
        ended.unlink()


@pytest.mark.parametrize(
    ("category", "days"),
    [(TRAVEL, 300), (replace(TRAVEL, url="http://127.0.0.1:1/elsewhere"), 10_000)],
    ids=["too old", "of another address"],
)
def test_a_part_that_is_too_old_or_of_another_address_is_given_up(
    tmp_path: Path, category: Category, days: int
) -> None:
    with PageArchive(tmp_path, "shop", TRAVEL, "1") as archive:
        archive.append(PAGES[0])
    with PageArchive(tmp_path, "shop", category, "2", timedelta(days=days)) as archive:
        assert (archive.crawl_id, archive.resumed) == ("2", {})
        archive.append(PAGES[1])
        assert list(read_pages(archive.finish(is_complete=True))) == [PAGES[1]]
    assert not list(tmp_path.rglob("*.part"))


def test_an_id_that_was_used_is_refused_for_other_crawls_may_rest_on_it(tmp_path: Path) -> None:
    kept(tmp_path, "1")
    with pytest.raises(PermanentSourceError, match="has a crawl '1' already"):
        PageArchive(tmp_path, "shop", TRAVEL, "1")


def test_of_two_crawls_at_once_the_second_says_who_is_in_its_way_or_waits(tmp_path: Path, shop: CountingShop) -> None:
    source, category = shop_at(shop.address), biggest(shop)
    folder = tmp_path / source.name / category.slug
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with only_crawl(folder, "crawl-1", wait_s=0):
            held.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    with Fetcher(delay_s=0, concurrency=4) as fetcher:
        with pytest.raises(CrawlUnderWay, match=r"held by crawl crawl-1 in process \d+ since"):
            crawl_category(source, category, fetcher, tmp_path, "crawl-2", wait_s=0.2)
        threading.Timer(0.5, free.set).start()
        assert crawl_category(source, category, fetcher, tmp_path, "crawl-2", wait_s=30).is_complete
    thread.join()


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from bookclub_platform.sources._lock import only_crawl\n"
        "with only_crawl(Path(sys.argv[1]), 'crawl-1', 0): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], timeout=60, check=False, cwd=Path(__file__).parents[1]
    )
    assert "crawl crawl-1" in (tmp_path / ".lock").read_text()
    with only_crawl(tmp_path, "crawl-2", wait_s=0):
        assert "crawl crawl-2" in (tmp_path / ".lock").read_text()
