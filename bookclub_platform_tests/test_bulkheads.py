"""Questions that take long: what is asked in a moment is answered meanwhile, and a full house is called so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World
from serving.app import create_app
from serving.counting import counts
from serving.database.bulkheads import Bulkhead
from serving.database.catalogue import Snapshot
from serving.http.problems import Problem
from serving.recommender import finder

world = given.world

QUESTIONS = 16  # more than there are connections


@pytest.fixture
def api(world: World, tmp_path: Path) -> Iterator[httpx.Client]:
    settings = given.settings(tmp_path, answer_cache_mb=0)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: given.model_version(client) is not None)
        client.timeout = httpx.Timeout(60)
        yield client


def answers_beside(api: httpx.Client, paths: Sequence[str], short: Sequence[str]) -> list[httpx.Response]:
    """The answers to `paths`, asked all at once; meanwhile each of `short` is answered in a moment."""
    with ThreadPoolExecutor(len(paths)) as askers:
        asked = [askers.submit(api.get, path) for path in paths]
        time.sleep(0.3)
        for path in short:
            started = time.monotonic()
            assert api.get(path).status_code == 200, path
            assert time.monotonic() - started < 1.5, path  # the pool's own patience is 2 s
        assert not all(one.done() for one in asked)
        return [one.result() for one in asked]


def test_searches_that_wait_hold_no_connection(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., Any] = finder._found
    monkeypatch.setattr(finder, "_found", lambda *asked: time.sleep(0.6) or found(*asked))
    paths = [f"/books/search?q=whale{number}" for number in range(QUESTIONS)]
    answers = answers_beside(api, paths, ["/ready", "/books?sort=price", "/categories", "/stats/overview"])
    told = {answer.status_code: answer for answer in answers}
    assert set(told) == {200, 503}
    assert given.problem(told[503], 503)["type"].endswith(":busy") and int(told[503].headers["retry-after"]) > 0


def test_counts_that_take_postgres_long_hold_up_nothing_else(
    api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    count: Callable[..., Any] = counts.facets_of

    async def slow(snapshot: Snapshot, *asked: Any) -> Any:
        await snapshot.rows(sa.select(sa.func.pg_sleep(0.4)))
        return await count(snapshot, *asked)

    monkeypatch.setattr(counts, "facets_of", slow)
    paths = [f"/books?facets=true&source=none&min_price={number}" for number in range(QUESTIONS)]
    answers = answers_beside(api, paths, ["/ready", "/books?sort=price", "/categories", "/stats/overview"])
    assert {answer.status_code for answer in answers} == {200}


def test_the_only_source_is_counted_in_memory(api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"facets": True, "min_price": 11, "limit": 3}
    everything = given.get(api, "/books", **asked)
    of_the_only = given.get(api, "/books", **asked, source="books_toscrape")
    assert given.get(api, "/stats/overview")["sources"] == ["books_toscrape"]
    assert of_the_only | {"next": ""} == everything | {"next": ""}

    async def never(*_: Any) -> None:
        raise AssertionError("Postgres was asked to count")

    monkeypatch.setattr(counts, "facets_of", never)
    assert given.get(api, "/books", facets=True, min_price=12, source="books_toscrape")["facets"]["in_stock"]


def test_who_gives_up_waiting_takes_no_place() -> None:
    async def asked() -> None:
        bulkhead = Bulkhead("questions", slots=1, patience_s=0.05)
        async with bulkhead.slot():
            for _ in range(3):
                with pytest.raises(Problem, match="Too many questions are running"):
                    async with bulkhead.slot():
                        raise AssertionError("there was no place")
        async with bulkhead.slot():
            pass

    asyncio.run(asked())
