"""Answers that are put together from bytes in memory, beside those of the routes: the same, byte for byte."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core import tables
from bookclub_platform.core.stock import SELECT_VERSIONED
from bookclub_platform.models import Grown
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.app import create_app
from serving.books import book_files, stock_files
from serving.books.book_bytes import BookBytes
from serving.books.stock_files import StockFiles
from serving.database.catalogue import Catalogue
from serving.recommender import lineup
from serving.recommender.masks import Mask, Masks
from serving.recommender.near_bytes import NearBytes

world = given.world
VOLATILE = {"date", "x-request-id"}


@pytest.fixture
def composing(world: World) -> Iterator[httpx.Client]:
    """An API that puts answers together, over the world's books and models, which it brings back afterwards."""
    app = create_app(given.settings(world.home, answer_cache_mb=8), world.database_url, world.tracking_uri)
    with given.serving(app) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version)
        settled(world, client)
        yield client
    for category, books in given.catalogue().items():
        given.load(world.database_url, category, books)


def settled(world: World, client: httpx.Client) -> None:
    """Wait until both APIs rank what there is now."""
    path = f"/books/{ids_of(world)[0]}/recommendations"

    ((version,),) = given.read(world.database_url, tables.select_data_version())

    def is_settled() -> bool:
        answers = [get(one, path, limit=1) for one in (client, world.client)]
        return all({answer["ranked_data_version"], answer["data_version"]} == {str(version)} for answer in answers)

    given.wait_for(is_settled, 10)


def composed(client: httpx.Client) -> int:
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if line.startswith("bookclub_answers_composed_total")).split()[-1]))


def misses(client: httpx.Client) -> int:
    """Of answers from memory: put together, or made by the routes."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line for line in lines if 'cache_requests_total{outcome="misses"' in line).split()[-1]))


def data_version(client: httpx.Client, path: str) -> str:
    return client.get(path).headers["bookclub-data-version"]


def alike(world: World, client: httpx.Client, path: str, **headers: str) -> httpx.Response:
    """The answer, once it has been found to be the one of the routes."""
    answer, expected = client.get(path, headers=headers), world.client.get(path, headers=headers)
    assert answer.status_code == expected.status_code, path
    assert answer.content == expected.content, path
    told = [[pair for pair in one.headers.items() if pair[0] not in VOLATILE] for one in (answer, expected)]
    assert told[0] == told[1], path
    return answer


def questions() -> list[str]:
    """Every combination of some values of each filter, and what is no question."""
    values = {
        "category": ["", "sea", "nothing"],
        "min_price": ["", "12.1"],
        "max_price": ["", "16.1", "11"],
        "min_rating": ["", "3"],
        "in_stock": ["", "false"],
    }
    combined = itertools.product(*([name and f"{name}={value}" * bool(value) for value in several]
                                   for name, several in values.items()))  # fmt: skip
    odd = ["limit=0", "limit=x", "sort=id", "min_rating=9", "min_price=9&max_price=8", "limit=3&limit=4", "category="]
    odd += ["category=sea&category=space", "colour=red"]
    fine = [
        "limit=100",
        "limit=1",
        "exclude=1&exclude=2",
        "exclude=999999",
        "diversity=0.5",
        "diversity=0",
        "limit=2.0",
    ]
    return ["&".join(filter(None, parts)) for parts in combined] + odd + fine


def test_every_list_and_every_book_is_that_of_the_routes(world: World, composing: httpx.Client) -> None:
    for book_id in (book_id for theme in given.THEMES for book_id in ids_of(world, theme)):
        for path in (f"/books/{book_id}", f"/books/{book_id}/recommendations"):
            before = composed(composing)
            alike(world, composing, path)
            assert composed(composing) == before + 1, path


@pytest.fixture
def large(world: World, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The world's books are dealt with as very many are -> the ids that Postgres was asked for, one after the other."""
    shutil.rmtree(world.home / "serving" / "stock", ignore_errors=True)
    asked: list[int] = []
    rows = Catalogue.rows

    async def noted(self: Catalogue, statement: sa.Select[Any], parameters: dict[str, Any]) -> Any:
        asked.extend(parameters["ids"])
        return await rows(self, statement, parameters)

    for module in (stock_files, lineup):
        monkeypatch.setattr(module, "LARGE_FROM", 1)
    monkeypatch.setattr(lineup, "_PREPARED", 0)
    monkeypatch.setattr(book_files, "_WORTH_IT", 1)
    monkeypatch.setattr(book_files, "_LEAST_REST_S", 0.1)
    monkeypatch.setattr(Catalogue, "rows", noted)
    return asked


def test_books_of_a_large_catalogue_come_from_files_and_are_those_of_the_routes(
    large: list[int], world: World, composing: httpx.Client
) -> None:
    sea = given.catalogue()["sea"]

    def nothing_is_asked_for() -> bool:
        large.clear()
        for book_id in ids_of(world):
            alike(world, composing, f"/books/{book_id}/recommendations?min_price={next(prices) / 1000}")
            alike(world, composing, f"/books/{book_id}?{next(prices)}")
        return not large

    prices = itertools.count()
    given.wait_for(nothing_is_asked_for, 20)
    given.load(world.database_url, "sea", [replace(book, price=book.price + 1) for book in sea])
    settled(world, composing)
    given.wait_for(nothing_is_asked_for, 20)


def test_while_a_large_catalogue_is_read_answers_are_those_of_before(
    large: list[int], world: World, composing: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(self: StockFiles, *asked: Any) -> Any:
        is_to_end.wait(20)  # a million books take seconds
        return read(self, *asked)

    read, is_to_end = StockFiles.read, threading.Event()
    monkeypatch.setattr(StockFiles, "read", slow)
    book = f"/books/{ids_of(world)[0]}"
    paths, space = [book, f"{book}/recommendations", "/books?limit=3"], given.catalogue()["space"]
    (before,) = {data_version(composing, path) for path in paths}
    by_routes = misses(composing) - composed(composing)
    given.load(world.database_url, "space", [replace(one, price=one.price + 1) for one in space])
    assert data_version(composing, f"{book}/history") != before  # which Postgres tells
    for _ in range(11):
        assert {data_version(composing, path) for path in paths} == {before}
    assert misses(composing) - composed(composing) == by_routes
    is_to_end.set()
    given.wait_for(lambda: before not in {data_version(composing, path) for path in paths})


def test_whatever_is_asked_for_is_answered_as_by_the_routes(world: World, composing: httpx.Client) -> None:
    for query in ("limit=7", "limit=7&cursor=7", "cursor=48", "cursor=999", "limit=48", "cursor=3.p1250", "sort=price"):
        alike(world, composing, f"/books?{query}")
    before, known = composed(composing), [book_id for theme in given.THEMES for book_id in ids_of(world, theme)]
    for number, query in enumerate(questions()):
        alike(world, composing, f"/books/{known[number % 48]}/recommendations?{query}")
        alike(world, composing, f"/books?limit=5&{query}")
    assert composed(composing) - before > len(questions()) / 3
    for path in ("/books/0", "/books/999999", "/books/0/recommendations", "/books/9999999999999999999", "/books/007"):
        alike(world, composing, path)


def test_a_browser_that_has_the_book_is_told_so_and_a_packed_answer_is_the_same(
    world: World, composing: httpx.Client
) -> None:
    path = f"/books/{ids_of(world)[3]}"
    tag = alike(world, composing, path).headers["etag"]
    assert alike(world, composing, f"{path}/recommendations", **{"If-None-Match": tag}).status_code == 200
    once = f"{path}/recommendations?limit=8"
    tag = world.client.get(once).headers["etag"]
    assert alike(world, composing, once, **{"If-None-Match": tag}).status_code == 304
    assert alike(world, composing, f"{path}?once", **{"If-None-Match": tag}).status_code == 422
    alike(world, composing, f"{path}/recommendations?limit=9", **{"Accept-Encoding": "gzip"})


def test_after_each_change_answers_are_those_of_the_routes_again(world: World, composing: httpx.Client) -> None:
    sea = given.catalogue()["sea"]
    changed = [replace(book, price=book.price + 1, description=f"{book.title}, once more.") for book in sea]
    sold_out = [replace(book, stock=0, in_stock=False) if number % 3 else book for number, book in enumerate(sea)]
    for books in (sea[:-2], sold_out, changed, sea):
        given.load(world.database_url, "sea", books)
        settled(world, composing)
        before = composed(composing)
        for book_id in ids_of(world)[::5]:
            for query in ("", "?in_stock=false", "?category=sea"):
                alike(world, composing, f"/books/{book_id}/recommendations{query}")
            alike(world, composing, f"/books/{book_id}")
        assert composed(composing) > before


def test_lists_that_nobody_asked_for_before_are_answered_while_postgres_is_away(
    world: World, composing: httpx.Client
) -> None:
    asked, never_asked = ids_of(world)[:2]
    expected = get(world.client, f"/books/{never_asked}/recommendations", max_price=18)
    for row in given.read(world.database_url, tables.select_books()):  # has all read, which else takes a while
        get(composing, f"/books/{row.id}")
    with given.without_postgres(world.database_url):
        given.wait_for(lambda: composing.get(f"/books/{asked}").status_code == 503)
        answer = composing.get(f"/books/{never_asked}/recommendations?max_price=18")
        assert answer.status_code == 200
        assert [item["book"] for item in answer.json()["items"]] == [item["book"] for item in expected["items"]]
        problem(composing.get(f"/books/{never_asked}"), 503)
    given.wait_for(lambda: composing.get(f"/books/{asked}").is_success)
    settled(world, composing)
    before, prices = composed(composing), itertools.count(18)

    def is_put_together() -> bool:
        """Once the books were read again, though they are of the same version: never asked, so that none is kept."""
        get(composing, f"/books/{asked}/recommendations", max_price=next(prices))
        return composed(composing) > before

    given.wait_for(is_put_together)


def test_a_ranking_is_kept_for_masks_that_are_the_same_and_memory_holds_its_bound(world: World) -> None:
    grown = Grown(world.models[world.first.version])
    near, every = NearBytes(grown, 40_000), np.ones(len(grown.ids), dtype=np.bool_)

    def is_as_searched(book_id: int, may: NDArray[np.bool_]) -> bool:
        found = near.of(book_id, 5, Mask.of(may.copy())).ids.tolist()
        return bool(found == [one.book_id for one in grown.nearest(grown.probe([book_id]), 5, may)])

    assert Mask.of(every).digest == Mask.of(every.copy()).digest != Mask.of(every[1:]).digest
    for book_id in grown.ids.tolist():
        without_nearest = every.copy()
        without_nearest[grown.place(int(near.of(book_id, 5, Mask.of(every)).ids[0]))] = False
        for may in (every, without_nearest, every):
            assert is_as_searched(book_id, may)
        assert near._rankings.size_bytes <= 10_000 and near._pairs.size_bytes <= 30_000
    with pytest.raises(KeyError):
        near.of(10**9, 5, Mask.of(every))
    assert len(list(near.emptied())) > 0 and near._rankings.size_bytes == near._pairs.size_bytes == 0
    assert all(is_as_searched(book_id, every) for book_id in grown.ids.tolist())


def test_a_mask_is_the_same_however_long_ago_it_was_asked_for_and_made_once_while_it_is_kept() -> None:
    made: list[int] = []

    def make(number: int) -> NDArray[np.bool_]:
        made.append(number)
        return np.random.default_rng(number).random(1001) < 0.3

    masks = Masks(make)
    for number in (*range(150), *range(150)):
        may, digest = masks.of(number)
        assert may.tolist() == (np.random.default_rng(number).random(1001) < 0.3).tolist()
        assert digest == Mask.of(may).digest
        places = np.random.default_rng(number).integers(0, 1001, 50)
        bits = masks.at_hand(number)
        assert bits is not None and bits.digest == digest and bits.take(places).tolist() == may[places].tolist()
    assert made == list(range(150))
    assert len(masks._latest) < 150  # the others as bits
    for number in range(1000):
        masks.of(number)
    assert len(masks._bits) == 200


def test_a_book_is_given_only_in_the_version_of_its_row_that_is_asked_for(world: World) -> None:
    with sa.create_engine(world.database_url, poolclass=sa.NullPool).connect() as connection:
        rows = connection.execute(SELECT_VERSIONED, {"ids": ids_of(world)}).all()
    kept = BookBytes(2**20)
    kept.keep(rows, epoch=1)
    (first, second), version = ids_of(world)[:2], rows[0].version
    ((json,), (other,), (elsewhere,)) = (kept.of([rows[0].id], [asked], epoch) for asked, epoch in
                                         ((version, 1), (version + 1, 1), (version, 2)))  # fmt: skip
    assert json is not None and other is None and elsewhere is None
    small = BookBytes(3 * kept.size_bytes // len(rows))
    small.keep(rows, epoch=1)
    assert small.size_bytes <= 3 * kept.size_bytes // len(rows)
    assert small.of([rows[-1].id], [rows[-1].version], 1) != [None]
    assert small.of([first, second], [version, version], 1) == [None, None] or rows[-1].id in (first, second)
