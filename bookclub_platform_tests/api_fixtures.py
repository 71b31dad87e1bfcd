"""What the tests of the API stand on: a small catalogue in a real Postgres, a real MLflow server, the API on a port."""

from __future__ import annotations

import atexit
import functools
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import pytest
import sqlalchemy as sa
import uvicorn
from fastapi import FastAPI

from bookclub_platform.core import tables
from bookclub_platform.core.book import Book
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.settings import Settings
from bookclub_platform.models import BookText, ModelVersion, Registry, Tfidf
from bookclub_platform_tests.local_http import free_port
from bookclub_platform_tests.mlflow_store import store_in
from bookclub_platform_tests.waiting import is_up, wait_for
from serving.app import create_app
from serving.run import OPTIONS

THEMES = {
    "sea": ["lighthouse", "storm", "harbour", "sailor", "tide", "whale", "captain", "shipwreck"],
    "garden": ["orchard", "roses", "greenhouse", "seeds", "beekeeper", "soil", "hedge", "gardener"],
    "space": ["comet", "orbit", "astronaut", "colony", "engine", "planet", "signal", "airlock"],
    "crime": ["detective", "alibi", "poison", "inspector", "ledger", "witness", "forgery", "vault"],
}
FIRST_CRAWL = datetime(2026, 1, 1, 12, tzinfo=UTC)
PROBLEM = "application/problem+json"
_crawls = itertools.count(1)


def catalogue() -> dict[str, list[Book]]:
    """Category -> twelve books whose texts share words of the category's theme."""
    return {theme: [_book(theme, words, number) for number in range(12)] for theme, words in THEMES.items()}


def _book(theme: str, words: list[str], number: int) -> Book:
    first, second, third = (words[(number * step) % len(words)] for step in (1, 3, 5))
    return Book(
        source="books_toscrape",
        source_id=f"{theme}-{number}",
        upc=f"{theme}-{number}",
        title=f"The {first.capitalize()} and the {second} {number}",
        category=theme,
        category_name=theme.capitalize(),
        price=Decimal("10.10") + number,
        currency="GBP",
        rating=number % 5 + 1,
        stock=number % 4,
        in_stock=number % 4 > 0,
        description=None
        if number == 11
        else f"A tale of a {first}, a {second} and of the {third} that everybody feared.",
        num_reviews=0,
        url=f"http://127.0.0.1/catalogue/{theme}-{number}/index.html",
        image_url=None,
        seen_at=FIRST_CRAWL,
    )


def load(database_url: str, category: str, books: Sequence[Book]) -> None:
    """Bring the category to `books`, as a crawl later than all before would; others of it are delisted."""
    number = next(_crawls)
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        later = FIRST_CRAWL + timedelta(days=number)
        load_category(connection, "books_toscrape", category, f"crawl-{number}", books, [], later, least_share=0)


def read(database_url: str, statement: sa.Select) -> list[sa.Row]:  # type: ignore[type-arg]
    """What Postgres itself says, past the API."""
    with sa.create_engine(database_url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.execute(statement).all())


def train(database_url: str, registry: Registry, only: str | None = None) -> tuple[Tfidf, ModelVersion]:
    """A model of all listed books, or of one category, published but not promoted."""
    rows = [BookText(*row) for row in read(database_url, tables.select_training_rows())]
    model = Tfidf().fit([row for row in rows if only in {None, row.category}])
    tags = {"data_version": "4", "dagster_run": "http://dagster.internal:3000/runs/1"}
    return model, registry.publish(model, model.parameters, {"coverage": 1.0}, tags, artifact_root=None)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """The address of a real MLflow server that keeps its state in `folder`, artifacts in `folder/artifacts`."""
    port = free_port()
    stores = ["--backend-store-uri", store_in(folder), "--artifacts-destination", f"{folder}/artifacts"]
    command = [sys.executable, "-m", "mlflow", "server", *stores, "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: is_up(f"{address}/health"), 180)
        yield address
    finally:
        server.terminate()
        server.wait(20)


@functools.cache
def shared_mlflow() -> tuple[str, Path]:
    """A server for all modules (it takes seconds to start), up until the tests end, and its folder."""
    ending = ExitStack()
    atexit.register(ending.close)
    folder = Path(ending.enter_context(tempfile.TemporaryDirectory()))
    return ending.enter_context(mlflow_server(folder)), folder


@contextmanager
def serving(app: FastAPI, starts_within_s: float = 20) -> Iterator[httpx.Client]:
    """A client of `app`, which uvicorn serves on a free port of loopback."""
    config = uvicorn.Config(app, **OPTIONS | {"log_level": "warning", "timeout_graceful_shutdown": 2})
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20) as client:
            wait_for(lambda: server.started, starts_within_s, "the API has not started")
            yield client
        server.should_exit = True
        thread.join(20)


def settings(home: Path, **others: Any) -> Settings:
    """Without quotas, unless told: the tests ask more often than people. Without kept answers: a test that changes the
    books asks at once, and a kept answer may be a second old (test_kept.py)."""
    unlimited = dict.fromkeys(
        [
            "anonymous_per_minute",
            "account_per_minute",
            "address_per_minute",
            "logins_per_minute",
            "registrations_per_hour",
            "feedback_per_day",
        ],
        0,
    )
    return Settings(home=home, **({"model_poll_s": 0.05, "answer_cache_mb": 0} | unlimited | others))


def model_version(client: httpx.Client) -> str | None:
    """The version that answers; None while there is no model."""
    answer = client.get("/model")
    return answer.json()["version"] if answer.is_success else None


def damage(mlflow_folder: Path, version: ModelVersion) -> None:
    """Cut the artifacts of `version` in the store, as a full disk would."""
    idf = next(path for path in mlflow_folder.rglob("idf.npy") if version.run_id in str(path))
    idf.write_bytes(idf.read_bytes()[:-4])


@contextmanager
def without_postgres(database_url: str) -> Iterator[None]:
    """While it lasts, nobody has or gets a connection to that database."""
    database = sa.make_url(database_url)
    server = sa.create_engine(database.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    killed = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
    with server.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {database.database} ALLOW_CONNECTIONS false"))
        connection.execute(killed, {"name": database.database})
        try:
            yield
        finally:
            connection.execute(sa.text(f"ALTER DATABASE {database.database} ALLOW_CONNECTIONS true"))


class World(NamedTuple):
    """Everything that runs, and the model that the API starts with (`first`; `sea` knows one category alone)."""

    client: httpx.Client
    database_url: str
    registry: Registry
    tracking_uri: str
    mlflow_folder: Path
    home: Path
    models: dict[str, Tfidf]
    first: ModelVersion
    sea: ModelVersion


@pytest.fixture(scope="module")
def world(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    for category, books in catalogue().items():
        load(database_url, category, books)
    tracking_uri, folder = shared_mlflow()
    registry = Registry(tracking_uri)
    model, first = train(database_url, registry)
    sea_model, sea = train(database_url, registry, only="sea")
    registry.promote(first)
    home = tmp_path_factory.mktemp("home")
    app = create_app(settings(home), database_url, tracking_uri)

    async def fault() -> None:
        raise RuntimeError("a secret of the server")

    app.add_api_route("/fault", fault)
    with serving(app) as client:
        wait_for(lambda: model_version(client) == first.version, 60)  # a busy machine must not fail a whole module
        models = {first.version: model, sea.version: sea_model}
        yield World(client, database_url, registry, tracking_uri, folder, home, models, first, sea)


@pytest.fixture(scope="module")
def client(world: World) -> httpx.Client:
    return world.client


@pytest.fixture
def after(world: World) -> Iterator[World]:
    """The world, brought back to its first state afterwards."""
    yield world
    for category, books in catalogue().items():
        load(world.database_url, category, books)
    world.registry.promote(world.first)
    wait_for(lambda: model_version(world.client) == world.first.version)


def with_all_books(world: World, model: Tfidf) -> Tfidf:
    """What the API answers with: the model, with the books that it was not taught in its space."""
    rows = [BookText(*row) for row in read(world.database_url, tables.select_training_rows())]
    return model.fold(rows)


def ids_of(world: World, category: str = "sea") -> list[int]:
    return [row.id for row in read(world.database_url, tables.select_books(category))]


def get(client: httpx.Client, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer: httpx.Response, status: int) -> Any:
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    body = answer.json()
    assert (body["status"], unquote(body["instance"])) == (status, answer.request.url.path)
    assert body["title"] and body["detail"] and body["type"].startswith(("about:blank", "tag:"))
    return body


def problem_like(answer: httpx.Response, status: int) -> None:
    """A problem that somebody in front of the API tells, who does not repeat the path."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM), answer.text
    assert answer.json()["status"] == status and answer.json()["detail"]
