"""One, two and three workers under the same load -> the memory that each worker after the first costs, as Markdown.

    python benchmarks/workers.py                                                   # 1,000 books: two minutes; needs wrk
    python benchmarks/workers.py --books 1000000 --work FOLDER --settle 90 --accounts 2    # the FOLDER of answers.py

The load covers lists (also with filters and of categories), books, pages, searches and counts; then accounts log in and
export. Memory is the proportional set size of all processes of the API together, so that shared pages, such as
libraries and mapped models, count once. macOS does not report it; there the unique set sizes are added up.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import sqlalchemy as sa
from _servers import UNLIMITED, filled, mlflow_server, publish, questions, serve
from _wrk import load

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.tables import books, select_categories
from bookclub_platform.local.postgres import leased

OPEN = UNLIMITED | {"BOOKCLUB_LOGINS_PER_MINUTE": "0", "BOOKCLUB_REGISTRATIONS_PER_HOUR": "0"}
CONNECTIONS = 8  # per worker
LOGINS = 10
PASSWORD = "nineteen green kettles sing"


class Memory(NamedTuple):
    """Bytes of all processes together, and the unshared bytes of each process, largest first."""

    together: int
    own: list[int]

    @classmethod
    def of(cls, parent: psutil.Process) -> Memory:
        found = [one.memory_full_info() for one in (parent, *parent.children(recursive=True))]
        together = sum(getattr(one, "pss", one.uss) for one in found)
        return cls(together, sorted((one.uss for one in found), reverse=True))


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        work = options.work or Path(folder)
        url = running.enter_context(leased(work))
        ids, model = filled(work, url, options.books)
        registry = running.enter_context(mlflow_server(work))
        if not (work / "published").exists():
            publish(registry, model)
            (work / "published").touch()
        del model
        environment = OPEN | {"BOOKCLUB_DATABASE_URL": url, "MLFLOW_TRACKING_URI": registry}
        asked = all_questions(url, random.Random(0).sample(ids, min(options.asked, len(ids))))
        home = work / "home"
        seen = {number: one_run(options, environment, home, asked, number) for number in options.workers}
    print(f"{len(ids)} books, {options.asked} asked for, {options.seconds:g} s of each kind of question\n")
    tell(seen)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=1000, help="of how many books, drawn at random")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--seconds", type=int, default=3, help="of each kind of question, for each worker")
    parser.add_argument(
        "--settle",
        type=float,
        default=10,
        help="seconds after the start, in which books are read ahead, and after the load: a worker with a large "
        "catalogue gives back what it has worked with once a minute, and later where that takes long",
    )
    parser.add_argument(
        "--accounts", type=int, default=8, help="that log in and export at once; of a million books 2, or they give way"
    )
    parser.add_argument("--work", type=Path, help="a folder that keeps what is made for the next run")
    return parser.parse_args()


def all_questions(url: str, ids: list[int]) -> dict[str, list[str]]:
    with sa.create_engine(database_urls(url).books).connect() as connection:
        slugs = [row.category for row in connection.execute(select_categories())]
        titles = list(connection.execute(sa.select(books.c.title).where(books.c.id.in_(ids[:300]))).scalars())
    asked = questions(ids, slugs)
    asked["searches"] = [str(httpx.URL("/books/search", params={"q": title})) for title in titles]
    asked["pages by price"] = [f"/books?category={slug}&sort=price&facets=true" for slug in slugs]
    asked["counts"] = ["/categories", "/stats/overview", "/stats/categories", "/model", "/metrics", "/openapi.json"]
    return asked


def one_run(
    options: argparse.Namespace, environment: dict[str, str], home: Path, asked: dict[str, list[str]], workers: int
) -> tuple[Memory, Memory, int]:
    """Memory before and after the load, and the number of failed responses."""
    given = environment | {"BOOKCLUB_API_WORKERS": str(workers), "BOOKCLUB_HOME": str(home)}
    with serve(given) as (api, parent):
        time.sleep(options.settle)
        before = Memory.of(parent)
        seconds = options.seconds * workers
        errors = sum(load(parent, api, paths, seconds, CONNECTIONS * workers).errors for paths in asked.values())
        with exporters(api, options.accounts) as accounts, ThreadPoolExecutor(options.accounts) as threads:
            errors += sum(threads.map(use, accounts))
        time.sleep(options.settle)
        return before, Memory.of(parent), errors


@contextmanager
def exporters(api: str, count: int) -> Iterator[list[tuple[str, str]]]:
    """Register `count` accounts -> (address of the API, name) of each."""
    with httpx.Client(base_url=api, timeout=60) as client:
        names = [f"reader-{random.randrange(10**9)}" for _ in range(count)]
        for name in names:
            client.post("/register", json={"username": name, "password": PASSWORD}).raise_for_status()
        yield [(api, name) for name in names]


def use(account: tuple[str, str]) -> int:
    """Log in repeatedly, each time over a new connection, and export -> the number of failed responses."""
    api, name = account
    errors = 0
    for _ in range(LOGINS):
        answer = httpx.post(f"{api}/login", data={"username": name, "password": PASSWORD}, timeout=60)
        errors += not answer.is_success
    headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    with httpx.Client(base_url=api, headers=headers, timeout=300) as client:
        for format in ("ndjson", "csv"):
            with client.stream("GET", "/books/export", params={"format": format}) as export:
                for _ in export.iter_raw():  # discarded: a million books are gigabytes
                    pass
            errors += not export.is_success and export.status_code != 503  # 503: too many at once
    return errors


def tell(seen: dict[int, tuple[Memory, Memory, int]]) -> None:
    print(
        "| workers | failed | ready, MB | each extra | after the load, MB | each extra | own of each |\n"
        + "|---" * 7
        + "|"
    )
    last: tuple[int, Memory, Memory] | None = None
    for number, (before, after, errors) in seen.items():
        extra = ["", ""]
        if last is not None:
            extra = [
                f"{(now.together - then.together) / (number - last[0]) / 2**20:.0f}"
                for now, then in zip((before, after), last[1:], strict=True)
            ]
        own = ", ".join(f"{one / 2**20:.0f}" for one in after.own)
        print(f"| {number} | {errors} | {before.together / 2**20:.0f} | {extra[0]} | "
              f"{after.together / 2**20:.0f} | {extra[1]} | {own} |")  # fmt: skip
        last = number, before, after


if __name__ == "__main__":
    main()
