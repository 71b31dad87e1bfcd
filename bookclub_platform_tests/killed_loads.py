"""Loads that are killed at random, with Postgres or without -> what they leave; as a test in small, by hand in full.

    python -m bookclub_platform_tests.killed_loads 30      # that many rounds, each killed; seconds each

A round loads one crawl of a made-up shop: prices change, books vanish, come back and move. Its process, Postgres, or
both are killed with SIGKILL in the middle. All rows of all tables must then be those that a second database, in which
nothing is ever killed, had between two of its loads; and the crawl, loaded again, must end as it ended there.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import psutil
import sqlalchemy as sa

from bookclub_platform.core.book import Book
from bookclub_platform.core.database import database_urls, ensure_databases, migrate, wait_until_up
from bookclub_platform.core.loads import load_category
from bookclub_platform.local.postgres import is_running, leased

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
CATEGORIES = 8
RESTART_PAUSE_S = 4.0  # the supervisor gives up a server that ends three times within ten seconds
ORDERLY = {
    "books": "SELECT source_id, title, category, price, stock, first_seen_at, last_seen_at, updated_at, delisted_at "
    "FROM bookclub.books ORDER BY source_id",
    "categories": "SELECT source_id, c.category, c.last_seen_at FROM bookclub.book_categories c "
    "JOIN bookclub.books ON books.id = book_id ORDER BY 1, 2",
    "observations": "SELECT source_id, crawl_id, seen_at, o.price, o.stock FROM bookclub.book_observations o "
    "JOIN bookclub.books ON books.id = book_id ORDER BY 1, 2",
    "loads": "SELECT category, crawl_id, inserted, updated, delisted FROM bookclub.loads ORDER BY crawl_id, category",
}


def shop(crawl: int, category: int, size: int) -> list[Book]:
    """One category as that crawl sees it: nearly all of its books, and of its neighbour some that moved."""
    books = []
    for number in range(size):
        chance = random.Random(f"{crawl // 2} {category} {number}").random()  # each state lasts two crawls
        if chance < 0.05:
            continue
        books.append(_book(crawl, category, number, category))
        if chance > 0.97:
            books.append(_book(crawl, (category + 1) % CATEGORIES, number, category))
    return books


def _book(crawl: int, home: int, number: int, category: int) -> Book:
    key = f"{home:02d}-{number:05d}"
    price = Decimal(random.Random(f"{key} {crawl // 3}").randrange(100, 9999)) / 100
    slug, at = f"category-{category}", NOON + timedelta(days=crawl)
    return Book("shop", key, key, f"Title {number % 50}", slug, slug, price, "GBP", 3, number, True, "blurb " * 150, 0,
                f"http://shop/{key}", None, at)  # fmt: skip


def load_all(url: str, crawl: int, size: int, after_each: Callable[[], None] = lambda: None) -> None:
    engine = sa.create_engine(url)
    at = NOON + timedelta(days=crawl, hours=1)
    for number in range(CATEGORIES):
        with engine.begin() as connection:
            books = shop(crawl, number, size)
            load_category(connection, "shop", f"category-{number}", f"crawl-{crawl:03d}", books, [], at)
        after_each()
    engine.dispose()


@dataclass
class Server:
    """The embedded Postgres of a folder, with the database that suffers and the one that does not."""

    home: Path
    url: str

    def database(self, name: str) -> str:
        url = sa.make_url(self.url).set(database=name).render_as_string(hide_password=False)
        return database_urls(url).books

    def kill_postmaster(self) -> None:
        os.kill(int((self.home / "postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def kill_a_backend(self) -> None:
        """One that serves the suffering database: Postgres then ends all the others and recovers."""
        postmaster = psutil.Process(int((self.home / "postgres/data/postmaster.pid").read_text().split()[0]))
        for one in postmaster.children():
            with contextlib.suppress(psutil.NoSuchProcess):  # others of its processes come and go
                if "suffers" in " ".join(one.cmdline()):
                    one.kill()

    def rows(self, name: str) -> dict[str, list[tuple[object, ...]]]:
        engine = sa.create_engine(self.database(name), poolclass=sa.NullPool)
        with engine.connect() as connection:
            return {what: [tuple(row) for row in connection.execute(sa.text(sql))] for what, sql in ORDERLY.items()}


def round_of(server: Server, crawl: int, size: int, span_s: float, chance: random.Random) -> str:
    """Kill the loads of one crawl at a random moment -> what was killed, and how many categories were in by then."""
    states = [server.rows("unharmed")]
    load_all(server.database("unharmed"), crawl, size, lambda: states.append(server.rows("unharmed")))
    command = [sys.executable, "-m", __name__.replace("__main__", "bookclub_platform_tests.killed_loads")]
    child = subprocess.Popen(
        [*command, "--load", server.database("suffers"), str(crawl), str(size)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None and child.stdout.readline() == b"loading\n"
    time.sleep(chance.uniform(0, span_s))
    server_kills: list[Callable[[], None]] = [server.kill_postmaster, server.kill_a_backend]
    kill_server = chance.choice(server_kills)
    kind = chance.choice(["run", "postgres", "both"])
    if kind != "postgres":
        child.kill()
    if kind != "run":
        kill_server()
    child.wait(60)
    time.sleep(0 if kind == "run" else RESTART_PAUSE_S)
    wait_until_up(server.url, 60)
    left = server.rows("suffers")
    assert left in states, "a category is half loaded, or a row is lost, doubled or not noted"
    load_all(server.database("suffers"), crawl, size)
    assert server.rows("suffers") == states[-1], "a second try does not end as an unkilled one"
    done = states.index(left)
    return f"{kind}{'' if kind == 'run' else ' ' + kill_server.__name__}: {done} of {CATEGORIES} categories were loaded"


def trial(home: Path, rounds: int, size: int, seed: int) -> list[str]:
    """`rounds` killed crawls -> a line for each; AssertionError at the first that left something wrong."""
    chance = random.Random(seed)
    lines = []
    with leased(home) as url:
        server = Server(home, url)
        for name in ("suffers", "unharmed"):
            one = database_urls(sa.make_url(url).set(database=name).render_as_string(hide_password=False))
            ensure_databases(one)
            migrate(one.books)
            started = time.monotonic()
            load_all(one.books, 0, size)
            span_s = time.monotonic() - started
        for crawl in range(1, rounds + 1):
            lines.append(f"{crawl}: " + round_of(server, crawl, size, span_s, chance))
            if __name__ == "__main__":
                print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    if sys.argv[1] == "--load":
        print("loading", flush=True)
        load_all(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            trial(Path(folder), int(sys.argv[1]), size=400, seed=int(time.time()))
            while is_running(Path(folder)):  # the server ends after its last user, and still writes
                time.sleep(0.1)
