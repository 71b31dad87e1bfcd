"""A Postgres that is there and does not answer, stopped as a frozen disk or host would: who asks is told in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from bookclub_platform.core.database import database_urls, migrate
from bookclub_platform.local.postgres import leased
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import get, problem
from bookclub_platform_tests.test_accounts import NOWHERE, bearer, register
from serving.app import create_app

WITHIN_S = 7.0  # 5 on an idle machine; two waits one after the other are 8, and psycopg's own way out took 14


@contextmanager
def frozen(home: Path) -> Iterator[None]:
    """While it lasts, no process of that server does anything."""
    (pid_file,) = home.rglob("postmaster.pid")
    postmaster = psutil.Process(int(pid_file.read_text().split()[0]))
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process.pid, signal.SIGCONT)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("frozen")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    with leased(home) as server:
        url = database_urls(server).books
        migrate(url)
        for category, books in given.catalogue().items():
            given.load(url, category, books)
        with given.serving(create_app(given.settings(home, model_poll_s=60), url, NOWHERE)) as client:
            yield client


def test_reads_of_a_frozen_database_end_within_seconds_and_then_at_once_until_it_is_back(
    home: Path, client: httpx.Client
) -> None:
    token = bearer(register(client, "waiting"))
    book_id = get(client, "/books")["items"][0]["id"]
    paths = ["/books", f"/books/{book_id}", f"/books/{book_id}/history", "/books?sort=price&min_rating=2"]
    paths += ["/categories", "/stats/overview"]

    def told_after(path: str, headers: dict[str, str]) -> float:
        answer = client.get(path, headers=headers)
        assert problem(answer, 503)["type"].endswith(":database-unavailable") and answer.headers["retry-after"]
        return answer.elapsed.total_seconds()

    with ThreadPoolExecutor(16) as pool:
        # So that there are connections that hang.
        given.wait_for(lambda: all(pool.map(lambda path: client.get(path).is_success, paths)), 60)
        with frozen(home):
            first = [pool.submit(told_after, path, headers) for path in paths for headers in ({}, token)]
            assert max(one.result() for one in first) < WITHIN_S, [one.result() for one in first]
            started = time.monotonic()
            later = sorted(told_after(path, token) for path in paths * 5)
            assert later[len(later) // 2] < 0.2 and later[-1] < WITHIN_S, later
            assert time.monotonic() - started < 4 * WITHIN_S
            started = time.monotonic()
            problem(client.get("/books/export", headers=token), 503)
            assert time.monotonic() - started < WITHIN_S
    given.wait_for(lambda: all(client.get(path, headers=token).is_success for path in paths), 3)
