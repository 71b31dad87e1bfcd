"""Faults that were found in the API, each with what brought it about."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.types import Message

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World
from bookclub_platform_tests.test_accounts import bearer, register
from serving.app import create_app
from serving.crawls import Dagster
from serving.database import exports
from serving.database.account_locks import AccountLocks
from serving.database.datawatch import DataWatch
from serving.database.exports import Exports
from serving.database.postgres import open_sync_engine
from serving.http.problems import Problem
from serving.monitoring.metrics import Metrics
from serving.recommender.lineup import Lineups
from serving.web.assets import FOR_EVER, asset

world, after = given.world, given.after


class Relay:
    """Stands before a Postgres, as a proxy does. After `swallow` the connections until then stay open, and nothing
    comes through; new ones are served."""

    def __init__(self, listener: socket.socket, database_url: str) -> None:
        self._listener, self._to = listener, sa.make_url(database_url)
        self.url = self._to.set(host="127.0.0.1", port=listener.getsockname()[1]).render_as_string(hide_password=False)
        self._swallowed: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._start(self._accept)

    def swallow(self) -> None:
        self._swallowed |= self._open

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection((self._to.host or "", self._to.port or 0))
                self._open |= {client, server}
                self._start(self._pass_on, client, server)
                self._start(self._pass_on, server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(2**16):
                if source not in self._swallowed:
                    target.sendall(data)

    def _start(self, run: Callable[..., None], *given: Any) -> None:
        threading.Thread(target=run, args=given, daemon=True).start()


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Relay(listener, database_url)


def test_a_watch_whose_connection_hangs_asks_over_a_new_one(relay: Relay) -> None:
    watch = DataWatch(relay.url)
    watch.start()
    given.wait_for(lambda: watch.is_current)
    relay.swallow()
    given.wait_for(lambda: not watch.is_current)
    given.wait_for(lambda: watch.is_current and not watch.is_to_be_spared(), 20)
    watch.stop()


def test_a_reader_whose_connection_hangs_reads_over_a_new_one(relay: Relay) -> None:
    ask = sa.select(sa.literal(1))
    slow = open_sync_engine(relay.url, is_read_only=True, timeout_s=60, pool_pre_ping=True)
    swift = open_sync_engine(relay.url, is_read_only=True, timeout_s=1)
    with slow.connect() as connection:
        assert connection.scalar(ask) == 1
    with swift.connect() as in_use:
        assert in_use.scalar(ask) == 1
        relay.swallow()
        with pytest.raises(sa.exc.OperationalError, match="has not answered in 2 s"):
            in_use.scalar(ask)
    started = time.monotonic()
    for engine in (slow, swift):
        with engine.connect() as connection:
            assert connection.scalar(ask) == 1
        engine.dispose()
    assert time.monotonic() - started < 30, "the ping waits less than a statement may take"


def test_an_export_whose_client_is_gone_before_the_first_chunk_frees_its_account_and_its_slot(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "_PATIENCE_S", 0.2)
    of_all = Exports(database_url, DataWatch(database_url), AccountLocks(tmp_path / "locks"))
    scope = {"type": "http", "method": "GET", "asgi": {"spec_version": "2.3"}}  # as uvicorn says

    async def receive() -> Message:
        raise HTTPException(413)

    async def send(message: Message) -> None:
        await asyncio.sleep(60)  # a client that does not read even the head

    async def ask() -> None:
        export = await of_all.open(7, "ndjson", with_delisted=False, after=0)
        with pytest.raises(HTTPException):
            await export.response({})(scope, receive, send)

    async def ask_often() -> None:
        for _ in range(exports.AT_ONCE + 1):
            await ask()

    asyncio.run(ask_often())


def test_a_get_whose_body_is_packed_or_long_is_answered_as_any_other(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    token = bearer(register(world.client, "sender"))
    for path in ("/static/style.css", "/books/export", "/books", "/catalogue/covers/none"):
        plain = world.client.get(path, headers=token)
        packed = world.client.get(path, headers=token | {"content-encoding": "gzip"})
        long = world.client.request("GET", path, headers=token, content=b"x" * 70_000)
        assert packed.status_code == long.status_code == plain.status_code, path
    assert "already started" not in caplog.text


def test_a_fault_of_the_books_is_in_ready_and_in_the_metrics_and_lists_are_answered(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(given.settings(tmp_path), world.database_url, world.tracking_uri)
    with given.serving(app) as client:
        given.wait_for(lambda: given.model_version(client) is not None, 30)
        given.wait_for(lambda: given.get(client, "/ready")["checks"]["books"]["ok"])
        assert "bookclub_books_fault 0.0" in client.get("/metrics").text

        def broken(*_: object) -> None:
            raise ValueError("a row that no schema has")

        monkeypatch.setattr(Lineups, "of", broken)
        given.wait_for(lambda: not given.get(client, "/ready")["checks"]["books"]["ok"])
        ready = given.get(client, "/ready")
        assert ready["status"] == "ready" and "no schema" in ready["checks"]["books"]["detail"]
        assert "bookclub_books_fault 1.0" in client.get("/metrics").text
        given.get(client, f"/books/{given.ids_of(world)[0]}/recommendations")


def test_a_background_task_that_ends_by_itself_is_logged(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(self: Metrics) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(Metrics, "share", broken)
    with given.serving(create_app(given.settings(tmp_path), database_url, "http://127.0.0.1:1")):
        given.wait_for(lambda: "A background task of this worker has ended" in caplog.text)


ANSWERS = {
    "one that breaks off": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "one that is not HTTP": b"a Dagster of another kind\r\n",
}


@pytest.mark.parametrize("sent", ANSWERS.values(), ids=ANSWERS.keys())
def test_of_a_crawl_whose_answer_is_not_whole_the_id_is_told(sent: bytes) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(sent)

    async def ask(address: str) -> None:
        dagster, crawl_id = Dagster(address), uuid4()
        with pytest.raises(Problem) as told:
            await dagster.start([["travel"]], crawl_id)
        assert told.value.kind == "dagster-unavailable" and f"/crawls/{crawl_id}" in str(told.value)
        dagster.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answer, args=[listener], daemon=True).start()
        asyncio.run(ask(f"http://127.0.0.1:{listener.getsockname()[1]}"))


def test_metrics_are_told_without_the_folder_and_without_a_file_of_another_worker_that_is_damaged(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "metrics"
    folder.mkdir()
    app = create_app(given.settings(tmp_path), database_url, "http://127.0.0.1:1", figures=folder)
    with given.serving(app) as client:
        (folder / "1.json").write_bytes(bytes(100))  # after a power cut
        for _ in range(2):
            assert "bookclub_http_request_seconds" in client.get("/metrics").text
        assert caplog.text.count("The figures of one worker are left out") == 1
        shutil.rmtree(folder)
        given.wait_for(lambda: "cannot be shared" in caplog.text)
        assert "bookclub_http_request_seconds" in client.get("/metrics").text


def without_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("has_folder", [True, False])
def test_an_account_has_a_lock_within_the_process_where_files_cannot_be_locked(
    has_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if has_folder:
        monkeypatch.setattr(fcntl, "lockf", without_locks)
    else:
        (tmp_path / "serving").write_text("a file, where no folder can be made")
    locks = AccountLocks(tmp_path / "serving" / "exports")
    for _ in range(2):
        with ExitStack() as held:
            assert [locks.take(7, held), locks.take(7, held), locks.take(8, held)] == [True, False, True]
    assert caplog.text.count("cannot be locked") == 1


def test_a_static_file_is_kept_for_ever_only_by_the_address_of_what_it_holds(world: World) -> None:
    kept = {
        address: world.client.get(address).headers["cache-control"]
        for address in (asset("style.css"), "/static/style.css?0123456789ab", "/static/style.css")
    }
    assert list(kept.values()) == [FOR_EVER, "no-cache", "no-cache"], kept


def test_a_static_file_is_answered_as_a_whole_and_its_etag_is_of_packed_and_plain(world: World) -> None:
    for method in ("GET", "HEAD"):
        for asked in ("bytes=0-9", "bytes=999999999-", "lines=1-2"):
            answer = world.client.request(method, "/static/style.css", headers={"range": asked})
            assert answer.status_code == 200 and "accept-ranges" not in answer.headers
    plain = world.client.get("/static/style.css", headers={"accept-encoding": "identity"})
    packed = world.client.get("/static/style.css", headers={"accept-encoding": "gzip"})
    assert (plain.headers["etag"], packed.headers["content-encoding"]) == (packed.headers["etag"], "gzip")
    assert plain.headers["etag"].startswith("W/")
    again = world.client.get("/static/style.css", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.headers["etag"]) == (304, plain.headers["etag"])
