"""What fails or takes long in one part of the API stays there: the other parts answer on."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from starlette.types import Message

from bookclub_platform.export import snapshot
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World
from serving.access import quotas
from serving.access.quotas import SharedQuotas
from serving.app import create_app
from serving.counting import counts
from serving.crawls import Dagster
from serving.database import exports
from serving.database.account_locks import AccountLocks
from serving.database.catalogue import Catalogue, Snapshot
from serving.database.datawatch import DataWatch
from serving.database.export_slots import ExportSlot
from serving.database.exports import Exports
from serving.database.postgres import open_engine, open_sync_engine
from serving.http.problems import Problem
from serving.monitoring.figures import SharedFigures
from serving.recommender.lineup import Lineups

NOWHERE = "http://127.0.0.1:1"

world, after = given.world, given.after


@pytest.mark.skipif(sys.platform != "linux", reason="the options have other names elsewhere")
def test_every_connection_notices_within_seconds_that_the_host_is_gone(database_url: str, tmp_path: Path) -> None:
    def options(connection: psycopg.Connection | psycopg.AsyncConnection) -> tuple[int, ...]:
        with socket.socket(fileno=os.dup(connection.pgconn.socket)) as tcp:
            asked = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
            return tuple(tcp.getsockopt(socket.IPPROTO_TCP, one) for one in asked)

    async def of_pool() -> tuple[int, ...]:
        engine = open_engine(database_url, 1, "READ COMMITTED", is_read_only=True)
        async with engine.connect() as connection:
            found = options((await connection.get_raw_connection()).driver_connection)  # type: ignore[arg-type]
        await engine.dispose()
        return found

    engine = open_sync_engine(database_url, is_read_only=True, timeout_s=3)
    with engine.connect() as connection:
        of_threads = options(connection.connection.driver_connection)  # type: ignore[arg-type]
    engine.dispose()
    with snapshot(Exports(database_url, DataWatch(database_url), AccountLocks(tmp_path / "locks"))._url) as exporting:
        of_exports = options(exporting.connection.driver_connection)  # type: ignore[arg-type]
    assert asyncio.run(of_pool()) == of_threads == of_exports == (5, 2, 3, 10_000)


def test_a_scrape_and_the_regular_sharing_write_metrics_at_the_same_time(tmp_path: Path) -> None:
    shared = SharedFigures(tmp_path)

    def write(_: int) -> None:
        shared.write([])
        json.loads((tmp_path / f"{os.getpid()}.json").read_text())

    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(400)))
    assert [path.name for path in tmp_path.iterdir()] == [f"{os.getpid()}.json"]


def test_a_full_disk_stops_the_sharing_of_metrics_only_until_there_is_room(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "metrics"
    app = create_app(given.settings(tmp_path), world.database_url, world.tracking_uri, figures=folder)
    with given.serving(app) as client:
        given.wait_for(lambda: "cannot be shared" in caplog.text)  # the folder is missing
        folder.mkdir()
        given.wait_for(lambda: any(folder.glob("*.json")))
        assert client.get("/metrics").status_code == 200


def test_an_export_that_ends_already_may_be_asked_to_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LEAST_WITHIN_S", 0.05)
    slot, is_closing = ExportSlot(1, time.monotonic()), asyncio.Event()

    async def body() -> AsyncGenerator[bytes, None]:
        try:
            yield b"first"
        finally:
            is_closing.set()
            await asyncio.sleep(0.2)

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(10)  # a client that does not read

    async def close() -> None:
        pass

    async def cut_off() -> None:
        response = exports._Closing(slot, body(), close)
        ending = asyncio.create_task(response.stream_response(send))
        await is_closing.wait()
        slot.on_leave()
        with pytest.raises(exports.CutShort):
            await ending

    asyncio.run(cut_off())


def test_an_account_is_free_for_the_next_export_once_the_lock_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks, held, lock = AccountLocks(tmp_path / "locks"), ExitStack(), fcntl.lockf
    taken: list[bool] = []

    def watched(file: object, command: int, *place: int) -> None:
        if command == fcntl.LOCK_UN:
            taken.append(locks.take(7, ExitStack()))  # as another task would, just then
        lock(file, command, *place)  # type: ignore[arg-type]

    assert locks.take(7, held)
    monkeypatch.setattr(fcntl, "lockf", watched)
    held.close()
    assert taken == [False], "its lock would be released with the one before"
    assert locks.take(7, ExitStack())


def test_a_dagster_that_hangs_takes_no_thread_of_others() -> None:
    async def ask() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            dagster = Dagster(f"http://127.0.0.1:{silent.getsockname()[1]}")
            asked = [asyncio.create_task(dagster.crawl(uuid4())) for _ in range(50)]
            await asyncio.sleep(0.1)
            async with asyncio.timeout(2):
                await asyncio.to_thread(time.sleep, 0)
            for task in asked:
                task.cancel()
            dagster.close()

    asyncio.run(ask())


def test_a_fault_while_answers_are_prepared_stops_nothing(
    after: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Lineups, lineup: object) -> Iterator[None]:
        raise ValueError("a row that no schema has")
        yield

    monkeypatch.setattr(Lineups, "prepare", broken)
    settings = given.settings(tmp_path, answer_cache_mb=8)
    with given.serving(create_app(settings, after.database_url, after.tracking_uri)) as client:
        given.wait_for(lambda: "a row that no schema has" in caplog.text)
        given.wait_for(lambda: given.model_version(client) is not None)
        book_id = client.get("/books?limit=1").json()["items"][0]["id"]
        given.load(after.database_url, "sea", given.catalogue()["sea"][:-1])
        newest = client.get("/books").json()["data_version"]
        path = f"/books/{book_id}/recommendations"
        given.wait_for(lambda: client.get(path).json()["ranked_data_version"] == newest)


def test_pages_that_postgres_must_count_for_leave_connections_to_others(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    categories = counts.categories

    async def slow(snapshot: Snapshot, stock: None) -> object:
        await snapshot.rows(sa.select(sa.func.pg_sleep(0.3)))
        return await categories(snapshot, stock)

    monkeypatch.setattr(counts, "categories", slow)
    app = create_app(given.settings(tmp_path), world.database_url, NOWHERE)
    with given.serving(app) as client, ThreadPoolExecutor(16) as readers:
        pages = [readers.submit(client.get, "/catalogue") for _ in range(16)]
        time.sleep(0.2)
        started = time.monotonic()
        assert client.get("/books/1").status_code in {200, 404}
        assert time.monotonic() - started < 1.5 and not all(page.done() for page in pages)
        assert {page.result().status_code for page in pages} == {200}


def test_who_waits_for_the_counts_of_another_is_told_so_and_not_that_postgres_is_away(database_url: str) -> None:
    async def count() -> None:
        watch = DataWatch(database_url)
        catalogue = Catalogue(database_url, watch)
        async with catalogue.snapshot() as first, catalogue.snapshot() as second:
            first._patience_s = second._patience_s = 0.1
            slow = asyncio.create_task(first.once("key", lambda: asyncio.sleep(0.5, 7)))
            await asyncio.sleep(0.05)
            with pytest.raises(Problem) as told:
                await second.once("key", lambda: asyncio.sleep(0, 8))
            assert told.value.kind == "busy" and await slow == 7
            assert await second.once("key", lambda: asyncio.sleep(0, 8)) == 7
        await catalogue.close()

    asyncio.run(count())


def test_a_fault_of_ours_is_a_problem_that_other_sites_may_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("a secret of ours")

    monkeypatch.setattr(counts, "categories", broken)
    settings = given.settings(tmp_path, cors_origins="https://shop.example")
    with given.serving(create_app(settings, world.database_url, NOWHERE)) as client:
        answer = client.get("/categories", headers={"origin": "https://shop.example"})
    told = given.problem(answer, 500)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example" and "secret" not in answer.text
    assert told["instance"] == "/categories" and len(answer.headers.get_list("x-request-id")) == 1
    assert len(answer.headers.get_list("content-security-policy")) == 1


def test_a_link_that_a_mail_or_network_has_marked_leads_to_the_shelves(world: World, tmp_path: Path) -> None:
    with given.serving(create_app(given.settings(tmp_path), world.database_url, NOWHERE)) as client:
        assert client.get("/catalogue?utm_source=mail&fbclid=x").status_code == 200
        assert client.get("/catalogue?min_rating=9").status_code == 404


def test_a_thousand_offers_of_another_protocol_at_once_are_a_thousand_requests(world: World, tmp_path: Path) -> None:
    offer = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with given.serving(create_app(given.settings(tmp_path), world.database_url, NOWHERE)) as client:
        address = client.base_url.host, client.base_url.port or 0
        with socket.create_connection(address, timeout=20) as connection, ThreadPoolExecutor(1) as sender:
            sent = sender.submit(connection.sendall, offer * 2000 + last)
            received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
            sent.result()
        assert received.count(b"HTTP/1.1 200") == 2001


def test_a_file_of_counters_that_others_use_is_not_emptied_for_a_fault_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "windows"
    SharedQuotas(path).take(quotas.Quota("test", 5, 60, "requests"), "ada")
    size = path.stat().st_size

    def refused(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match="no locks"):
        quotas._opened(path)
    assert path.stat().st_size == size > 0
