"""A folder -> made-up books in Postgres, a model of them, MLflow and the API, for benchmarks to put under load.

    url = running.enter_context(leased(work))
    ids, model = filled(work, url, 1000)                       # made once, for all runs with that folder
    registry = running.enter_context(mlflow_server(work))
    publish(registry, model)
    address, process = running.enter_context(serve(UNLIMITED | {"BOOKCLUB_DATABASE_URL": url, ...}))

Each server is a separate process on loopback, and is stopped at the end of the block.
"""

from __future__ import annotations

import decimal
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import sqlalchemy as sa
from _books import made_up
from _wrk import Load, Order, load

from bookclub_platform.cleaning import clean
from bookclub_platform.core.database import database_urls, ensure_databases, migrate
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.tables import books, loads, select_training_rows
from bookclub_platform.models import BookText, Registry, Tfidf

HERE = Path(__file__).parent
UNLIMITED = {f"BOOKCLUB_{name}": "0" for name in ("ANONYMOUS_PER_MINUTE", "ACCOUNT_PER_MINUTE", "ADDRESS_PER_MINUTE")}
LISTS = "10 like a book"


def filled(work: Path, url: str, count: int) -> tuple[list[int], Tfidf]:
    """The ids of `count` books in the table and a model of them: reused from `work`, or else created there."""
    note, folder = work / "filled", work / "model"
    if not note.exists():
        # A separate process, so that the memory it takes to make a million books is free again afterwards.
        with multiprocessing.get_context("spawn").Pool(1) as maker:
            maker.apply(save_filled, (url, count, folder))
        note.write_text(str(count))
    if note.read_text() != str(count):
        sys.exit(f"{work} holds {note.read_text()} books: name another folder for {count}.")
    with sa.create_engine(database_urls(url).books).connect() as connection:
        ids = list(connection.execute(sa.select(books.c.id).order_by(books.c.id)).scalars())
    return ids, Tfidf.load(folder)


def save_filled(url: str, count: int, folder: Path) -> None:
    fill(url, count)[1].save(folder)


def fill(url: str, count: int) -> tuple[list[int], Tfidf]:
    """`count` books of the sandbox in the table -> their ids, and a model of them."""
    urls = database_urls(url)
    ensure_databases(urls)
    migrate(urls.books)
    found = clean(list(made_up(count))).books
    with sa.create_engine(urls.books).begin() as connection:
        for category in sorted({book.category for book in found}):
            own = [book for book in found if book.category == category]
            load_category(connection, "sandbox", category, "1", own, [], max(book.seen_at for book in own))
    del found, own
    with sa.create_engine(urls.books).connect() as connection:
        rows = [BookText(*row) for row in connection.execute(select_training_rows())]
    return [row.id for row in rows], Tfidf().fit(rows)


def publish(address: str, model: Tfidf) -> None:
    registry = Registry(address)
    registry.promote(registry.publish(model, model.parameters, {"books": len(model.book_ids)}, {}, artifact_root=None))


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    port = free_port()
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(port), "--workers", "1"]
    with process(command, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, folder / "mlflow.log"):
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}"


@contextmanager
def serve(environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    home = Path(environment["BOOKCLUB_HOME"])
    home.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "serving"]
    with process(command, environment | {"BOOKCLUB_API_PORT": str(port)}, home / "serving.log") as started:
        wait_for(f"http://127.0.0.1:{port}/ready")
        yield f"http://127.0.0.1:{port}", started


@contextmanager
def process(command: list[str], variables: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    own = {"PYTHONPATH": str(HERE.parent), "MLFLOW_DISABLE_TELEMETRY": "true"}
    # `mlflow models serve` looks for uvicorn in PATH.
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | own | variables
    with log.open("wb") as output:
        started = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=log.parent)
    try:
        yield psutil.Process(started.pid)
    finally:
        children = psutil.Process(started.pid).children(recursive=True)
        started.terminate()
        started.wait(20)
        for child in psutil.wait_procs(children, 5)[1]:
            child.kill()


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            if httpx.get(address).is_success:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > deadline:
            sys.exit(f"{address} did not answer within 300 s")
        time.sleep(0.02)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def questions(ids: list[int], slugs: list[str]) -> dict[str, list[str]]:
    """Kind of request -> paths: one for each id, no two alike."""
    lists = [f"/books/{book_id}/recommendations" for book_id in ids]
    filters = ["min_rating=3", "min_price=10&max_price=40", "in_stock=false", "min_rating=2&max_price=50", "limit=5"]
    return {
        LISTS: lists,
        "the same, with filters": [f"{path}?{filters[at % len(filters)]}" for at, path in enumerate(lists)],
        "of one category": [f"{path}?category={slug}" for path, slug in zip(lists, cycle(slugs), strict=False)],
        "one book": [f"/books/{book_id}" for book_id in ids],
        "a page of 20": [f"/books?cursor={book_id}" for book_id in ids],
    }


class Server(NamedTuple):
    """The API, and the database with its books."""

    database_url: str
    address: str
    process: psutil.Process
    any_id: int

    def load(self, paths: list[str], seconds: float, order: Order, connections: int = 16, pause_ms: int = 0) -> Load:
        """Put load on the API. With the order "once" the books change first, so that no cached response is valid."""
        if order == "once":
            self.change()
        return load(self.process, self.address, paths, seconds, connections, pause_ms, order=order)

    @contextmanager
    def changing(self, every_s: float) -> Iterator[None]:
        """Change a price every `every_s` seconds, as while a crawl runs."""
        ended = threading.Event()

        def change_again() -> None:
            while not ended.wait(every_s):
                self.set_price()

        changes = threading.Thread(target=change_again)
        changes.start()
        try:
            yield
        finally:
            ended.set()
            changes.join()

    def set_price(self) -> int:
        """Change the price of one book, as a crawl would -> the new data version."""
        with sa.create_engine(database_urls(self.database_url).books).begin() as connection:
            chosen = books.c.id == self.any_id
            connection.execute(sa.update(books).where(chosen).values(price=books.c.price + decimal.Decimal("0.01")))
            noted = {"source": "sandbox", "category": "-", "crawl_id": "-", "inserted": 0, "updated": 1, "delisted": 0}
            version: int = connection.execute(sa.insert(loads).values(noted).returning(loads.c.id)).scalar_one()
        return version

    def change(self) -> None:
        """Change a price; return once the API ranks by the new state."""
        version = self.set_price()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            answer = httpx.get(f"{self.address}/books/{self.any_id}/recommendations?limit=1", timeout=30).json()
            if answer["ranked_data_version"] == str(version):
                return
            time.sleep(0.05)
        sys.exit("The API does not rank by the new state of the books after 60 s.")
