"""Exports over a real server and a real Postgres: whole, resumable, one at a time for each account."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests import test_api_catalogue as pages
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.app import create_app
from serving.database import export_slots, exports
from serving.database.account_locks import AccountLocks
from serving.database.export_slots import ExportSlots
from serving.process import logs

world, odd = given.world, pages.odd


@pytest.fixture(scope="module")
def token(odd: World) -> dict[str, str]:
    made = odd.client.post("/register", json={"username": "pandas", "password": "four words of mine"})
    return {"authorization": f"Bearer {made.json()['access_token']}"}


def test_all_formats_of_an_export_hold_the_same_books(odd: World, token: dict[str, str]) -> None:
    answers = {kind: odd.client.get(f"/books/export?format={kind}", headers=token) for kind in exports.MEDIA_TYPES}
    lines = [json.loads(line) for line in answers["ndjson"].text.splitlines()]
    rows = list(csv.DictReader(io.StringIO(answers["csv"].text)))
    columns = pq.read_table(io.BytesIO(answers["parquet"].content)).to_pylist()
    assert [line["id"] for line in lines] == [int(row["id"]) for row in rows] == [row["id"] for row in columns]
    assert {line["description"] for line in lines if line["category"] == "odd"} == {pages.ODD_DESCRIPTION}
    expected = pages.all_pages(odd.client, limit=100)
    assert [(line["id"], line["title"], line["price"], line["rating"]) for line in lines] == [
        (book["id"], book["title"], book["price"], book["rating"]) for book in expected
    ]
    assert lines == [book | {"also_in": None} for book in expected], "as the API writes them, to the letter"
    moments = ("first_seen_at", "last_seen_at", "updated_at")
    assert [[row[name] for name in moments] for row in rows] == [[book[name] for name in moments] for book in expected]
    assert answers["csv"].content.startswith(",".join(lines[0]).encode() + b"\r\n")
    for kind, answer in answers.items():
        assert answer.headers["content-type"].startswith(exports.MEDIA_TYPES[kind].split(";")[0])
        assert f".{kind}" in answer.headers["content-disposition"]
        assert answer.headers["bookclub-data-version"] == get(odd.client, "/books")["data_version"]


@pytest.mark.parametrize("kind", ["ndjson", "csv"])
def test_an_export_that_broke_off_is_gone_on_with_and_not_once_the_books_changed(
    odd: World, token: dict[str, str], kind: str
) -> None:
    whole = odd.client.get(f"/books/export?format={kind}", headers=token)
    version, last = whole.headers["bookclub-data-version"], ids_of(odd)[3]
    rest = odd.client.get(f"/books/export?format={kind}&after={last}&data_version={version}", headers=token)
    assert rest.text and whole.text.endswith(rest.text)
    marks = {"ndjson": f'{{"id":{last},', "csv": f"\n{last},"}
    assert marks[kind] in whole.text.removesuffix(rest.text)
    again = odd.client.get(f"/books/export?format={kind}", headers=token | {"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    moved = odd.client.get(f"/books/export?format={kind}&after={last}&data_version=1", headers=token)
    assert problem(moved, 409)["type"].endswith(":data-moved-on")


def test_an_export_needs_its_scope_and_who_leaves_early_holds_no_connection(odd: World, token: dict[str, str]) -> None:
    problem(odd.client.get("/books/export"), 401)
    narrow = odd.client.post("/login", data={"username": "pandas", "password": "four words of mine", "scope": "read"})
    answer = odd.client.get("/books/export", headers={"authorization": f"Bearer {narrow.json()['access_token']}"})
    assert "export" in problem(answer, 403)["detail"]
    for _ in range(exports.AT_ONCE + 2):  # one that was not given back would be missing for the last
        with odd.client.stream("GET", "/books/export", headers=token) as broken_off:
            assert broken_off.status_code == 200
    copying = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'")
    other = sa.create_engine(odd.database_url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with other.connect() as connection:
        given.wait_for(lambda: connection.scalar(copying) == 0)


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue that fills every buffer on the way, so that who does not read is waited for."""

    def chunks(*_: Any, **__: Any) -> Iterator[bytes]:
        while True:
            yield b"x" * 2**16

    monkeypatch.setattr(exports, "export_chunks", chunks)
    monkeypatch.setattr(exports, "_PATIENCE_S", 0.3)


def test_an_account_has_one_export_at_a_time_whichever_worker_it_asks(
    odd: World, token: dict[str, str], endless: None
) -> None:
    other = odd.client.post("/register", json={"username": "polars", "password": "four words of mine"})
    theirs = {"authorization": f"Bearer {other.json()['access_token']}"}
    app = create_app(given.settings(odd.home, model_poll_s=60), odd.database_url, "http://127.0.0.1:1")
    with given.serving(app) as second, odd.client.stream("GET", "/books/export", headers=token) as first:
        assert first.status_code == 200
        refused = odd.client.get("/books/export", headers=token)
        assert problem(refused, 429)["type"].endswith(":export-under-way") and refused.headers["retry-after"] == "10"
        with second.stream("GET", "/books/export", headers=theirs) as another:
            assert another.status_code == 200
    with odd.client.stream("GET", "/books/export", headers=token) as again:
        assert again.status_code == 200


TAKE_LOCKS = """
import sys; from contextlib import ExitStack; from pathlib import Path
from serving.database.account_locks import AccountLocks
locks, held = AccountLocks(Path(sys.argv[1])), ExitStack()
print([locks.take(account, held) for account in (7, 8)], flush=True)
sys.stdin.read()
"""


def test_the_turn_of_an_account_is_of_all_processes_and_ends_with_the_one_that_has_it(tmp_path: Path) -> None:
    locks = AccountLocks(tmp_path / "serving" / "exports")
    with ExitStack() as held:
        assert [locks.take(7, held), locks.take(7, held)] == [True, False]
        command = [sys.executable, "-c", TAKE_LOCKS, str(tmp_path / "serving" / "exports")]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as other:
            assert other.stdout is not None and other.stdout.readline() == "[False, True]\n"
            assert not locks.take(8, held)
            other.kill()
            other.wait()
            assert locks.take(8, held)
    with ExitStack() as held:
        assert locks.take(7, held) and locks.take(8, held)


PLAIN = {"accept-encoding": "identity"}  # packed, all of it would fit into what lies between


def account(client: httpx.Client, name: str) -> dict[str, str]:
    """The headers of a new account that asks for an export."""
    made = client.post("/register", json={"username": name, "password": "four words of mine"})
    return {"authorization": f"Bearer {made.json()['access_token']}"} | PLAIN


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What the log has of exports, and from uvicorn."""
    written = io.StringIO()
    handler, root = logs.handler(written), logging.getLogger()
    root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    yield lambda: [
        line
        for line in map(json.loads, written.getvalue().splitlines())
        if line["logger"].startswith(("serving.database.exports", "uvicorn"))
    ]
    root.removeHandler(handler)
    root.setLevel(level)


def test_who_takes_next_to_nothing_of_an_export_is_left_and_who_reads_is_not(
    odd: World,
    token: dict[str, str],
    endless: None,
    monkeypatch: pytest.MonkeyPatch,
    lines: Callable[[], list[dict[str, Any]]],
) -> None:
    monkeypatch.setattr(exports, "LEAST_WITHIN_S", 1.5)
    monkeypatch.setattr(exports, "LEAST_BYTES", 2**18)
    with ExitStack() as ending:
        slow = ending.enter_context(odd.client.stream("GET", "/books/export", headers=token | PLAIN))
        reader = ending.enter_context(odd.client.stream("GET", "/books/export", headers=account(odd.client, "swift")))
        assert read_for(reader.iter_raw(), 3) > 3 * exports.LEAST_BYTES, "the one that reads goes on"
        (told,) = lines()
        assert (told["logger"], told["why"], told["took_s"] > 1) == (
            "serving.database.exports",
            "it was too slow",
            True,
        )
        assert told["bytes"] > 0 and told["request_id"] and "exception" not in told
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in slow.iter_raw():
                pass
    given.wait_for(lambda: len(lines()) == 2)
    assert lines()[1]["why"] == "its client went away"


def test_one_that_is_left_while_a_chunk_is_read_is_closed_after_it(
    odd: World, token: dict[str, str], monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    ended = threading.Event()

    def slow_chunks(*_: Any, **__: Any) -> Iterator[bytes]:
        try:
            yield b"x"
            time.sleep(1)
            yield b"y"
        finally:
            ended.set()

    monkeypatch.setattr(exports, "export_chunks", slow_chunks)
    monkeypatch.setattr(exports, "LEAST_WITHIN_S", 0.3)
    with pytest.raises(httpx.RemoteProtocolError):
        odd.client.get("/books/export", headers=token | PLAIN)
    assert ended.wait(5)
    assert [(told["why"], "exception" in told) for told in lines()] == [("it was too slow", False)]


def read_for(chunks: Iterator[bytes], seconds: float) -> int:
    """How many bytes came in that time."""
    started, read = time.monotonic(), 0
    while time.monotonic() - started < seconds:
        read += len(next(chunks))
    return read


def test_whoever_is_slow_gives_way_to_who_waits_and_not_before(
    odd: World, endless: None, monkeypatch: pytest.MonkeyPatch, lines: Callable[[], list[dict[str, Any]]]
) -> None:
    app = create_app(given.settings(odd.home, model_poll_s=60), odd.database_url, "http://127.0.0.1:1")
    with ExitStack() as ending:
        client = ending.enter_context(given.serving(app))  # of which nobody had an export yet
        names = [f"greedy-{number}" for number in range(exports.AT_ONCE)]
        held = [ending.enter_context(client.stream("GET", "/books/export", headers=account(client, n))) for n in names]
        assert {answer.status_code for answer in held} == {200}
        swift, headers = held[0].iter_raw(), account(client, "newcomer")
        refused = client.get("/books/export", headers=headers)
        assert problem(refused, 503)["type"].endswith(":busy") and refused.headers["retry-after"] == "10"
        monkeypatch.setattr(export_slots, "UNDISTURBED_S", 0.5)
        assert read_for(swift, 1) > export_slots.FAIR_BYTES_PER_S and lines() == []
        monkeypatch.setattr(exports, "_PATIENCE_S", 10)
        newcomer = ending.enter_context(client.stream("GET", "/books/export", headers=headers))
        assert newcomer.status_code == 200
        (told,) = lines()
        assert told["why"] == "it was slow, and another waits"
        assert read_for(swift, 0.1) > 0, "the one that reads keeps its slot"


def test_the_last_slot_is_not_for_those_who_had_one_lately(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = ExportSlots(3)

    def take(account: int, taken: int = 1) -> ExitStack | None:
        held = ExitStack()
        if (slot := slots.take(account, held)) is None:
            return None
        slot.took(taken)
        return held

    unchanged = take(3, taken=0)
    assert unchanged is not None
    unchanged.close()
    first = [take(account) for account in (1, 2, 3)]
    assert all(first) and take(4) is None
    for held in first:
        assert held is not None
        held.close()
    again = [take(account) for account in (1, 2, 3)]
    assert [held is not None for held in again] == [True, True, False]
    newcomer = take(4)
    assert newcomer is not None and take(5) is None
    newcomer.close()
    monkeypatch.setattr(export_slots, "LATELY_S", 0.0)
    assert take(3) is not None, "after some time all are alike"
