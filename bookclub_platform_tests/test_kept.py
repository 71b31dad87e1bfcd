"""Answers that are given again from memory: the same bytes, never of another model or of other books."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform.core import tables
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.answers.kept import KeptAnswer, KeptAnswers
from serving.app import create_app
from serving.database import datawatch
from serving.database.datawatch import HELD_IF_LARGE_S, HELD_S, STALE_S, DataWatch

world = given.world


@pytest.fixture
def keeping(world: World) -> Iterator[httpx.Client]:
    """An API that keeps answers, over the world's books and models, which it brings back afterwards."""
    app = create_app(given.settings(world.home, answer_cache_mb=8), world.database_url, world.tracking_uri)
    with given.serving(app) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version)
        given.wait_for(lambda: "bookclub_database_up 1.0" in client.get("/metrics").text)
        yield client
    for category, books in given.catalogue().items():
        given.load(world.database_url, category, books)
    world.registry.promote(world.first)
    given.wait_for(lambda: given.model_version(world.client) == world.first.version)


def outcomes(client: httpx.Client) -> dict[str, float]:
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("bookclub_answer_cache_requ")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in lines}


def test_a_question_asked_again_is_answered_with_the_same_bytes_from_memory(
    world: World, keeping: httpx.Client
) -> None:
    book_id = ids_of(world)[0]
    for path in (f"/books/{book_id}/recommendations?limit=5", f"/books/{book_id}", "/books?limit=7", "/categories"):
        first, again = keeping.get(path), keeping.get(path)
        unkept = world.client.get(path)
        assert first.content == again.content == unkept.content
        volatile = {"date", "x-request-id"}
        assert [pair for pair in first.headers.items() if pair[0] not in volatile] == [
            pair for pair in again.headers.items() if pair[0] not in volatile
        ]
        assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert outcomes(keeping) == {"hits": 4, "stale": 0, "misses": 4}
    assert 'route="/books/{book_id}",status="200"} 2.0' in keeping.get("/metrics").text


def test_what_is_no_answer_of_books_or_an_error_is_never_kept(keeping: httpx.Client) -> None:
    for path in ("/books/999999/recommendations", "/books?limit=0", "/books/1/recommendations?limit=x", "/books/0"):
        assert keeping.get(path).status_code == keeping.get(path).status_code >= 400
    for path in ("/model", "/health", "/ready"):
        get(keeping, path)
    assert outcomes(keeping)["hits"] == 0


def test_a_change_of_the_books_is_answered_soon(world: World, keeping: httpx.Client) -> None:
    book_id = ids_of(world)[0]
    near = [item["book"]["id"] for item in get(keeping, f"/books/{book_id}/recommendations")["items"]]
    rest = [book for book in given.catalogue()["sea"] if book.source_id != _source_id(world, near[0])]
    given.load(world.database_url, "sea", rest)
    # STALE_S is for the server, which other tests may keep waiting for the CPU.
    given.wait_for(lambda: near[0] not in _ids(keeping, book_id), 5 * STALE_S)
    assert len(_ids(keeping, book_id)) == 10


def _source_id(world: World, book_id: int) -> str:
    source_id: str = given.read(world.database_url, tables.select_book(book_id))[0].source_id
    return source_id


def _ids(client: httpx.Client, book_id: int) -> list[int]:
    return [item["book"]["id"] for item in get(client, f"/books/{book_id}/recommendations")["items"]]


def test_who_saw_a_newer_data_version_is_never_given_an_older_one(world: World, keeping: httpx.Client) -> None:
    kept, other = (f"/books/{book_id}" for book_id in ids_of(world)[:2])
    before = keeping.get(kept).headers["bookclub-data-version"]
    given.load(world.database_url, "sea", given.catalogue()["sea"][:-1])
    newer = keeping.get(f"{other}/history").headers["bookclub-data-version"]  # never kept: read from Postgres
    assert int(newer) > int(before)
    assert keeping.get(kept).headers["bookclub-data-version"] == newer


def test_each_champion_answers_for_itself_before_and_after_a_rollback(world: World, keeping: httpx.Client) -> None:
    book_id = ids_of(world)[0]
    for version in (world.first, world.sea) * 3:
        world.registry.promote(version)
        given.wait_for(lambda: given.model_version(keeping) == version.version)  # noqa: B023 - called at once
        for _ in range(2):
            answer = keeping.get(f"/books/{book_id}/recommendations?limit=8&in_stock=false")
            assert answer.json()["model"]["run_id"] == version.run_id
            assert answer.headers["bookclub-model"] == f"tfidf_model/{version.version}"
            expected = [
                found.book_id
                for found in given.with_all_books(world, world.models[version.version]).recommend(book_id, 8)
            ]
            assert [item["book"]["id"] for item in answer.json()["items"]] == expected
    assert outcomes(keeping)["hits"] == 10  # of twelve: a rollback finds what was kept before


def test_lists_are_answered_while_postgres_is_away_and_all_else_is_a_503(world: World, keeping: httpx.Client) -> None:
    known = ids_of(world)[0]
    before = keeping.get(f"/books/{known}/recommendations")
    get(keeping, f"/books/{known}")
    with given.without_postgres(world.database_url):
        given.wait_for(lambda: keeping.get(f"/books/{known}").status_code == 503)
        answer = keeping.get(f"/books/{known}/recommendations")
        assert answer.content == before.content and answer.status_code == 200
        assert answer.headers["bookclub-data-version"] == before.headers["bookclub-data-version"]
        for path in ("/books", f"/books/{known}", f"/books/{known}/recommendations?diversity=0.5"):
            failed = keeping.get(path)
            problem(failed, 503)
            assert int(failed.headers["retry-after"]) > 0 and failed.elapsed.total_seconds() < 2
        assert outcomes(keeping)["stale"] >= 1
        assert "bookclub_database_up 0.0" in keeping.get("/metrics").text
        assert not problem(keeping.get("/ready"), 503)["checks"]["database"]["ok"]
    given.wait_for(lambda: keeping.get(f"/books/{known}").is_success)
    given.wait_for(lambda: "bookclub_database_up 1.0" in keeping.get("/metrics").text)
    misses = outcomes(keeping)["misses"]
    get(keeping, f"/books/{known}/recommendations")
    assert outcomes(keeping)["misses"] == misses + 1  # another database may have come back


def test_memory_is_of_use_only_to_who_may_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.access.accounts.LIVE_FOR_S", 0.1)
    settings = given.settings(world.home, answer_cache_mb=8, require_login=True)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: client.get("/ready").is_success)
        name = {"username": "keeper", "password": "four words of mine"}
        token = client.post("/register", json=name).json()["access_token"]
        header = {"Authorization": f"Bearer {token}"}
        path = f"/books/{ids_of(world)[0]}"
        assert client.get(path, headers=header).content == client.get(path, headers=header).content
        problem(client.get(path), 401)
        problem(client.get(path, headers={"Authorization": "Bearer none"}), 401)
        assert outcomes(client)["hits"] == 1
        assert client.post("/logout", headers=header).is_success
        time.sleep(0.15)
        problem(client.get(path, headers=header), 401)
    with sa.create_engine(world.database_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("DELETE FROM bookclub.users"))


def test_the_watch_asks_for_what_the_catalogue_calls_its_data_version(world: World) -> None:
    with sa.create_engine(world.database_url, poolclass=sa.NullPool).connect() as connection:
        ours = connection.exec_driver_sql(datawatch._DATA_VERSION).scalar()
        assert ours == connection.scalar(tables.select_data_version()) > 0


def test_a_newer_data_version_waits_for_who_reads_it_first_and_not_for_long(world: World) -> None:
    now = time.monotonic()
    watch = DataWatch(world.database_url)
    watch._found("7", None, now)
    watch._found("8", "7", now)
    assert (watch.version, watch.newest, watch.is_current) == ("7", "8", True)
    watch.saw("8", now)
    assert watch.version == "8"
    watch._found("9", "8", now + HELD_S - 0.01)
    assert watch.version == "8"
    watch._found("9", "9", now + HELD_S + 0.01)
    assert watch.version == watch.newest == "9"
    watch._found("2", "9", now + HELD_S + 0.01)  # another database
    assert watch.version == watch.newest == "2"


def test_of_a_large_catalogue_a_newer_data_version_waits_for_its_lineup(world: World) -> None:
    now = time.monotonic()
    watch = DataWatch(world.database_url)
    watch.is_large = True
    watch._found("7", None, now - 5)
    watch._found("8", "7", now)
    watch.saw("8")  # a search, whose answer says so
    assert (watch.version, watch.newest, watch.is_current) == ("7", "8", True)
    watch.saw("8", now - 2)
    watch._found("9", "8", now)
    assert (watch.version, watch.newest, watch.is_current) == ("8", "9", True)
    watch._found("9", "9", now - 2 + HELD_IF_LARGE_S)
    assert watch.version == "9"


def test_nothing_comes_from_memory_once_postgres_is_silent_though_a_newer_version_is_held_back(world: World) -> None:
    watch = DataWatch(world.database_url)
    began = time.monotonic()
    watch._found("7", None, began)
    watch.is_large = True
    watch._found("8", "7", began + 0.2)
    while watch.is_current:
        time.sleep(0.01)
    assert STALE_S <= time.monotonic() - began < STALE_S + 1


def test_lists_come_from_memory_all_the_while_the_books_change(
    world: World, keeping: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datawatch, "HELD_S", 20.0)  # on a busy machine a lineup may take longer than it may in a shop
    path = f"/books/{ids_of(world)[0]}/recommendations"
    given.wait_for(lambda: all(get(keeping, path)["model"].values()))
    asked = outcomes(keeping)
    composed_before, count = _composed(keeping), 0
    version = get(keeping, path)["data_version"]
    given.load(world.database_url, "sea", given.catalogue()["sea"][:-1])
    while get(keeping, path)["data_version"] == version:
        count += 1
    found = outcomes(keeping)
    misses = found["misses"] - asked["misses"]
    assert count > 0 and misses == _composed(keeping) - composed_before  # the routes, with Postgres, answered none


def _composed(client: httpx.Client) -> float:
    lines = client.get("/metrics").text.splitlines()
    return float(next(line for line in lines if line.startswith("bookclub_answers_composed_total")).split()[-1])


def test_memory_holds_its_bound_and_forgets_what_was_not_used_longest() -> None:
    kept = KeptAnswers(2**20)
    for number in range(300):
        kept.keep(number, KeptAnswer([], [], bytes(10_000), None))
        assert kept.find(0) is not None
        assert kept.size_bytes <= 2**20
    assert kept.find(1) is None and kept.find(299) is not None
    kept.keep("large", KeptAnswer([], [], bytes(2**19), None))
    assert kept.find("large") is None and kept.find(299) is not None
    for number in range(1000, 1300):
        kept.keep((number, b"q" * 8000), KeptAnswer([], [], b"[]", None, query_bytes=8000))
    assert (
        kept.size_bytes <= 2**20
        and sum(kept.find((number, b"q" * 8000)) is not None for number in range(1000, 1300)) < 130
    )


def test_who_has_any_answer_is_told_that_it_still_holds_and_a_refused_coding_is_not_sent(
    world: World, keeping: httpx.Client
) -> None:
    path = f"/books/{ids_of(world)[0]}"
    for address in (path, f"{path}/recommendations", "/books?limit=40", "/categories"):
        for client in (keeping, keeping, world.client):  # from bytes or the routes, from memory, from the routes
            assert client.get(address, headers={"If-None-Match": "*"}).status_code == 304, address
            for refused in ("gzip;q=0", "identity, x-gzip ; q=0.000", "gzip;Q=0,br", "br, gzip; q=0.0 ,identity"):
                assert "content-encoding" not in client.get(address, headers={"Accept-Encoding": refused}).headers
    for wanted in ("gzip", "gzip;q=0.1", "br;q=0, gzip", "gzip;q=1.0"):
        packed = keeping.get("/books?limit=40", headers={"Accept-Encoding": wanted})
        assert packed.headers["content-encoding"] == "gzip"
        held = {"Accept-Encoding": wanted, "If-None-Match": packed.headers["etag"]}
        answer = keeping.get("/books?limit=40", headers=held)
        assert (
            answer.status_code == 304 and "vary" in answer.headers and answer.headers["etag"] == packed.headers["etag"]
        )
        assert not {"content-encoding", "content-type", "content-length"} & set(answer.headers)


def test_what_caches_may_keep_follows_from_who_asks_and_not_from_who_asked_first(
    world: World, keeping: httpx.Client
) -> None:
    name = {"username": "sharing", "password": "four words of mine"}
    token = {"Authorization": f"Bearer {keeping.post('/register', json=name).json()['access_token']}"}
    asked = [({}, "public, no-cache"), (token, "private, no-cache")]
    for path, order in ((f"/books/{ids_of(world)[1]}", asked), ("/categories", asked[::-1])):
        hits = outcomes(keeping)["hits"]
        for headers, told in order * 2:
            answer = keeping.get(path, headers=headers)
            assert (answer.headers["cache-control"], answer.headers["vary"][:13]) == (told, "Authorization")
            held = keeping.get(path, headers=headers | {"If-None-Match": answer.headers["etag"]})
            assert (held.status_code, held.headers["cache-control"]) == (304, told)
        assert outcomes(keeping)["hits"] == hits + 7
