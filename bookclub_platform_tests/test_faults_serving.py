"""Faults that were found in the API, each with what brought it about."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World
from bookclub_platform_tests.test_accounts import bearer, register
from serving.database import exports
from serving.database.account_locks import AccountLocks
from serving.database.datawatch import DataWatch
from serving.database.exports import Exports

world, after = given.world, given.after


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
