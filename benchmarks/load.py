"""Made-up books -> the table, as the platform loads them, beside plain COPY of the same rows -> a table on stdout.

    python benchmarks/load.py                       # 10,000 and 100,000 books: a minute or two
    python benchmarks/load.py --books 1000000       # minutes, and about 10 GB of disk

Ours reads a file of cleaned rows for each of 50 categories and loads each in its own transaction. COPY sends prepared
text, in as many transactions, into tables with the same columns, indexes, constraints and fill factor: the least that
Postgres needs to store these rows of `books` and `book_observations`. Both use the same embedded Postgres.

CPU seconds are those of this process and its Postgres session: wall-clock time also includes other work on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from _figures import RSS_UNIT

from bookclub_platform.core.book import Book
from bookclub_platform.core.cleaned import CleanedCategory, read_cleaned, write_cleaned
from bookclub_platform.core.database import database_urls
from bookclub_platform.core.loads import LoadResult, load_category
from bookclub_platform.core.tables import book_observations, books, select_books
from bookclub_platform.local.postgres import is_running, leased

CATEGORIES = 50
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CRAWLS = [f"{NOON + timedelta(days=day):%Y%m%dT%H%M%S.%fZ}-{day:08x}" for day in range(2)]
BLOCK = 1 << 18
# 700 to 1,700 letters per description: those of the real shop have 1,430 on average.
LETTERS = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz     ", k=1 << 20))
PEERS = {books: "copied_books", book_observations: "copied_observations"}
PEER_TABLES = """
CREATE TABLE copied_books (LIKE bookclub.books INCLUDING ALL) WITH (fillfactor = 50);
CREATE TABLE copied_observations (
    LIKE bookclub.book_observations INCLUDING ALL, FOREIGN KEY (book_id) REFERENCES copied_books (id)
);
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)  # one size, in its own process, for peak memory
    options = parser.parse_args()
    if options.work:
        print(json.dumps(measured(options.work, options.books[0])))
        return
    print("| books | seconds | COPY | first load | / COPY | again, unchanged | / first | read all | peak, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for count in options.books:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--work", folder, "--books", str(count)]
            done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            while is_running(Path(folder)):  # the server stops after its last user, and may still be writing
                time.sleep(0.1)
        for unit, label in (("s", "by the clock"), ("cpu_s", "of CPU")):
            copied, first, again, read = (done[f"{name}_{unit}"] for name in ("copy", "first", "again", "read"))
            print(
                f"| {count:,} | {label} | {copied:.2f} | {first:.2f} | {first / copied:.2f} | {again:.2f} "
                f"| {again / first:.2f} | {read:.2f} | {done['peak_mb']:.0f} |",
                flush=True,
            )


def measured(folder: Path, count: int) -> dict[str, float]:
    write_crawls(folder, count // CATEGORIES)
    with leased(folder) as url:
        engine = sa.create_engine(database_urls(url).books)
        first, inserted = timed(engine, lambda: sum(result.inserted for result in loaded(engine, folder, 0)))
        write_copies(engine, folder)
        copied, _ = timed(engine, lambda: copy_in(engine, folder))
        again, unchanged = timed(engine, lambda: sum(result.unchanged for result in loaded(engine, folder, 1)))
        read, rows = timed(engine, lambda: read_all(engine))
        counts = {"inserted": inserted, "unchanged": unchanged, "rows": rows} | copies(engine)
    if set(counts.values()) != {count}:
        sys.exit(f"Not all of them are {count}: {counts}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 2**20
    seconds = {"copy": copied, "first": first, "again": again, "read": read}
    figures = {f"{name}_{unit}": value for name, both in seconds.items() for unit, value in both.items()}
    return {"books": count, "peak_mb": peak} | figures


def timed(engine: sa.Engine, work: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """({wall-clock seconds, CPU seconds of this process and its one session}, the result of `work`)"""
    with engine.connect() as connection:
        session = psutil.Process(driver_of(connection).info.backend_pid)  # the pool gives `work` the same one

    def cpu_s() -> float:
        return time.process_time() + sum(session.cpu_times()[:2])

    started, cpu_before = time.perf_counter(), cpu_s()
    given = work()
    return {"s": time.perf_counter() - started, "cpu_s": cpu_s() - cpu_before}, given


class Crawl(Collection[Book]):
    """One category as one crawl saw it; generated at each iteration, so that it takes no memory."""

    def __init__(self, day: int, category: int, count: int) -> None:
        self.day, self.category, self.count = day, category, count

    def __len__(self) -> int:
        return self.count

    def __contains__(self, book: object) -> bool:
        return any(one == book for one in self)

    def __iter__(self) -> Iterator[Book]:
        for place in range(self.count):
            yield book(self.category * self.count + place, self.category, NOON + timedelta(self.day, place / 100))


def book(number: int, category: int, seen_at: datetime) -> Book:
    chance = number * 2654435761 % (1 << 32)  # Knuth's multiplicative hash: keys in no order, like UPCs
    upc, at, stock = f"{chance:08x}{number:08x}", chance % (1 << 19), chance % 23
    return Book(
        source="shop",
        source_id=upc,
        upc=upc,
        title=f"The {LETTERS[at : at + 22]} {number}",
        category=f"category-{category:02d}",
        category_name=f"Category {category:02d}",
        price=Decimal(1000 + chance % 5000) / 100,
        currency="GBP",
        rating=1 + chance % 5,
        stock=stock,
        in_stock=stock > 0,
        description=LETTERS[at : at + 700 + chance % 1000],
        num_reviews=0,
        url=f"http://shop/catalogue/{number}/index.html",
        image_url=f"http://shop/media/{upc}.jpg",
        seen_at=seen_at,
    )


def write_crawls(folder: Path, count: int) -> None:
    for day, crawl_id in enumerate(CRAWLS):
        for category in range(CATEGORIES):
            crawl = CleanedCategory(crawl_id, NOON + timedelta(day, 7200), True, Crawl(day, category, count), [])
            write_cleaned(folder / str(day) / f"{category}.jsonl", crawl)


def loaded(engine: sa.Engine, folder: Path, day: int) -> Iterator[LoadResult]:
    for category in range(CATEGORIES):
        cleaned = read_cleaned(folder / str(day) / f"{category}.jsonl")
        assert cleaned is not None
        with engine.begin() as connection:
            slug = f"category-{category:02d}"
            yield load_category(
                connection, "shop", slug, cleaned.crawl_id, cleaned.books, cleaned.rejected, cleaned.crawled_at
            )


def _names(table: sa.Table) -> str:
    return ", ".join(column.name for column in table.c if column is not books.c.id)


def write_copies(engine: sa.Engine, folder: Path) -> None:
    """Write the rows of both tables as text for COPY, one file per category, and create the target tables."""
    with engine.begin() as connection, driver_of(connection).cursor() as cursor:
        cursor.execute(PEER_TABLES)
        for category in range(CATEGORIES):
            own = f"SELECT id FROM bookclub.books WHERE category = 'category-{category:02d}'"  # noqa: S608
            for table, key in ((books, "id"), (book_observations, "book_id")):
                rows = f"SELECT {_names(table)} FROM {table} WHERE {key} IN ({own}) ORDER BY {key}"  # noqa: S608
                with (
                    (folder / f"{PEERS[table]}.{category}").open("wb") as file,
                    cursor.copy(f"COPY ({rows}) TO STDOUT") as copy,
                ):
                    file.writelines(copy)


def copy_in(engine: sa.Engine, folder: Path) -> None:
    for category in range(CATEGORIES):
        with engine.begin() as connection, driver_of(connection).cursor() as cursor:
            for table, peer in PEERS.items():
                with (
                    (folder / f"{peer}.{category}").open("rb") as file,
                    cursor.copy(f"COPY {peer} ({_names(table)}) FROM STDIN") as copy,
                ):
                    while block := file.read(BLOCK):
                        copy.write(block)


def copies(engine: sa.Engine) -> dict[str, int]:
    """How many rows COPY has loaded into each table."""
    with engine.connect() as connection:
        return {
            peer: connection.scalar(sa.select(sa.func.count()).select_from(sa.table(peer))) or 0
            for peer in PEERS.values()
        }


def read_all(engine: sa.Engine) -> int:
    """Read every listed book with the platform's own statement and a server-side cursor -> how many."""
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=1000).execute(select_books())
        return sum(len(part) for part in rows.partitions())


def driver_of(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


if __name__ == "__main__":
    main()
