"""Faults that were found in the API, each with what brought it about."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.types import Message

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World
from bookclub_platform_tests.test_accounts import bearer, register
from serving.app import create_app
from serving.database import exports
from serving.database.account_locks import AccountLocks
from serving.database.datawatch import DataWatch
from serving.database.exports import Exports
from serving.database.postgres import open_sync_engine
from serving.monitoring.metrics import Metrics
from serving.recommender.lineup import Lineups

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
