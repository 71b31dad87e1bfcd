"""local/doctor/: each part is told as it is, with what mends it, soon, and also when nothing is up."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.local.doctor import Finding, examine
from bookclub_platform.local.doctor._finding import NoAnswer, ask_json
from bookclub_platform.local.doctor._machine import ports, versions
from bookclub_platform.local.doctor._services import api, dagster, mlflow
from bookclub_platform.local.home import held_by_us
from bookclub_platform_tests.local_http import Handler, free_port, served
from bookclub_platform_tests.test_build import BOOKCLUB
from bookclub_platform_tests.test_tables import BOOK, load_category


def settings_of(home: Path, **more: Any) -> Settings:
    names = ("api_port", "dagster_port", "mlflow_port", "sandbox_port")
    return load_settings(
        **{"home": home, "shop_url": "http://127.0.0.1:9"} | {name: free_port() for name in names} | more
    )


def findings(settings: Settings, patience_s: float = 8.0) -> dict[str, Finding]:
    return {finding.part: finding for finding in examine(settings, patience_s)}


def test_with_everything_down_each_part_is_told_with_its_mend_and_soon(tmp_path: Path) -> None:
    started = time.monotonic()
    found = findings(settings_of(tmp_path / "home"))
    assert time.monotonic() - started < 5
    assert [part for part, finding in found.items() if finding.is_well] == ["versions", "disk", "ports", "sources"]
    assert {part for part, finding in found.items() if not finding.is_well} == {
        *("database", "migrations", "shop", "crawl", "mlflow", "model", "dagster", "schedules", "partitions", "api")
    }
    assert all(finding.mend.endswith(".") for finding in found.values() if not finding.is_well)
    assert not (tmp_path / "home").exists(), "asking must change nothing"


def test_an_address_that_takes_a_question_and_never_answers_holds_nobody_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        settings = settings_of(
            tmp_path,
            shop_url=f"http://127.0.0.1:{port}",
            database_url=f"postgresql://me@127.0.0.1:{port}/books",
            mlflow_tracking_uri=f"http://127.0.0.1:{port}",
            dagster_port=port,
            api_port=port,
        )
        started = time.monotonic()
        found = findings(settings, patience_s=1.5)
        assert time.monotonic() - started < 6, "one after the other would be 7.5"
    assert {"database", "shop", "mlflow", "dagster", "api"} <= {p for p, one in found.items() if not one.is_well}


def test_a_server_that_is_about_to_start_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with (tmp_path / "postgres" / "supervisor.lock").open("w") as lock:  # as a supervisor in its first moment
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "is starting" in findings(settings_of(tmp_path))["database"].text


def test_the_database_is_told_from_empty_to_filled_and_old(database_url: str, tmp_path: Path) -> None:
    settings = settings_of(tmp_path, database_url=database_url)
    found = findings(settings)
    assert (found["database"].is_well, found["database"].mend) == (False, "Fill it: `bookclub build`.")
    assert found["migrations"].is_well

    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    for age, is_well in ((timedelta(hours=3), True), (timedelta(days=3), False)):
        with engine.begin() as connection:
            connection.execute(sa.text("TRUNCATE bookclub.books CASCADE"))
            at = datetime.now(UTC) - age
            for source, seen_at in (("books_toscrape", at), ("removed", at - timedelta(days=9))):
                book = replace(BOOK, source=source, seen_at=seen_at)
                load_category(connection, source, "travel", f"crawl-{age}", [book], [], seen_at)
        found = findings(settings)
        assert found["database"].text.startswith("2 books in Postgres ")
        assert "bookclub:***@" in found["database"].text
        assert (found["crawl"].is_well, found["crawl"].text) == (is_well, f"last crawl: books_toscrape {told(age)} ago")


def told(age: timedelta) -> str:
    return f"{age.days} days" if age.days else f"{age.seconds // 3600} hours"


@pytest.mark.parametrize(
    ("revision", "mend"), [("0001", "`bookclub db upgrade`."), ("9999", "Install the newer platform.")]
)
def test_a_database_of_another_revision_is_told(database_url: str, tmp_path: Path, revision: str, mend: str) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    now = sa.text("SELECT version_num FROM bookclub.alembic_version")
    put = sa.text("UPDATE bookclub.alembic_version SET version_num = :revision")
    with engine.begin() as connection:
        newest = connection.scalar(now)
        connection.execute(put, {"revision": revision})
    try:
        finding = findings(settings_of(tmp_path, database_url=database_url))["migrations"]
    finally:
        with engine.begin() as connection:
            connection.execute(put, {"revision": newest})
    assert (finding.is_well, finding.mend) == (False, mend)


def test_a_taken_port_and_two_servers_on_one_are_told_by_their_settings(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = settings_of(tmp_path, mlflow_port=other.getsockname()[1])
        (finding,) = ports(settings)
        assert (finding.is_well, "set BOOKCLUB_MLFLOW_PORT to a free port" in finding.mend) == (False, True)
        with held_by_us(tmp_path):
            assert ports(settings)[0].is_well, "what the platform listens on is not taken"
    (finding,) = ports(settings_of(tmp_path, mlflow_port=9001, dagster_port=9001))
    assert "BOOKCLUB_DAGSTER_PORT=9001, BOOKCLUB_MLFLOW_PORT=9001" in finding.text


def test_a_package_of_another_version_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "importlib.metadata.requires",
        lambda _: ["dagster<1", "no-such-package; extra == 'platform'", "x; extra == 'dev'"],
    )
    (finding,) = versions(settings_of(tmp_path))
    assert not finding.is_well
    assert "dagster is 1." in finding.text and "must be <1; no-such-package is missing" in finding.text


def dagster_answer(**wrong: Any) -> dict[str, Any]:
    """What Dagster 1.13 answers to the question, with one schedule, one daemon and one asset."""
    repository = {
        "schedules": [
            {
                "name": "daily_crawl",
                "scheduleState": {"status": wrong.get("status", "RUNNING"), "ticks": wrong.get("ticks", [])},
            }
        ],
        "sensors": [{"name": "new_categories", "sensorState": {"status": "RUNNING", "ticks": []}}],
    }
    location = {"message": "no module"} if wrong.get("broken") else {"repositories": [repository]}
    daemon = {
        "daemonType": "SCHEDULER",
        "required": True,
        "healthy": wrong.get("healthy", True),
        "lastHeartbeatErrors": [],
    }
    return {
        "data": {
            "version": "1.13",
            "workspaceOrError": {"locationEntries": [{"name": "bookclub_platform", "locationOrLoadError": location}]},
            "instance": {"daemonHealth": {"allDaemonStatuses": [daemon]}},
            "assetNodes": [
                {
                    "assetKey": {"path": ["shop", "raw_pages"]},
                    "assetPartitionStatuses": {"failedPartitions": wrong.get("failed", [])},
                    "assetChecksOrError": {"checks": [wrong["check"]] if "check" in wrong else []},
                },
                {"assetKey": {"path": ["tfidf_model"]}, "assetPartitionStatuses": {}, "assetChecksOrError": {}},
            ],
        }
    }


def check_of(severity: str, failed: list[str] | None) -> dict[str, Any]:
    """A check as Dagster answers it: with the partitions that `failed`, or without partitions and failed (None)."""
    return {
        "name": "fits",
        "partitionStatuses": None if failed is None else {"failedPartitions": failed},
        "executionForLatestMaterialization": {"status": "FAILED", "evaluation": {"severity": severity}},
    }


@contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[int]:
    """The port of a server that gives this answer to everything."""

    class Answering(Handler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def do_GET(self) -> None:
            self.say(status, body)

    with served(Answering) as address:
        yield urlsplit(address).port or 0


@pytest.mark.parametrize(
    ("wrong", "part", "text"),
    [
        ({"status": "STOPPED"}, "schedules", "daily_crawl is stopped"),
        (
            {"ticks": [{"status": "FAILURE", "error": {"message": "no shop"}}]},
            "schedules",
            "the last tick of daily_crawl failed: no shop",
        ),
        ({"healthy": False}, "schedules", "daemon scheduler is not well"),
        ({"failed": list("abcdefg")}, "partitions", "failed: shop/raw_pages: a, b, c, d, e and 2 more"),
        ({"check": check_of("ERROR", ["travel"])}, "partitions", "failed: shop/raw_pages: check fits of travel"),
        ({"check": check_of("ERROR", None)}, "partitions", "failed: shop/raw_pages: check fits"),
        ({"check": check_of("ERROR", [])}, None, ""),
        ({"check": check_of("WARN", ["travel"])}, None, ""),
        ({"broken": True}, "dagster", "does not load bookclub_platform: no module"),
        ({}, None, ""),
    ],
)
def test_what_dagster_says_of_itself_is_told(
    tmp_path: Path, wrong: dict[str, Any], part: str | None, text: str
) -> None:
    with answering(json.dumps(dagster_answer(**wrong)).encode()) as port:
        found = {finding.part: finding for finding in dagster(settings_of(tmp_path, dagster_port=port))}
    assert set(found) == {"dagster", "schedules", "partitions"}
    if part is None:
        assert all(finding.is_well for finding in found.values())
    else:
        assert not found[part].is_well
        assert text in found[part].text
        assert f"http://127.0.0.1:{port}/" in found[part].mend


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"<html>", 200, "another program listens there"),
        (b'{"detail": "no model yet"}', 503, "answers 503 Service Unavailable: no model yet"),
    ],
)
def test_an_answer_that_is_none_is_told_as_it_is(body: bytes, status: int, text: str) -> None:
    with answering(body, status) as port, pytest.raises(NoAnswer, match=text):
        ask_json(f"http://127.0.0.1:{port}/model")


def test_a_program_that_speaks_no_http_is_told_and_no_password_is(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = listener.getsockname()[1]
        (found,) = mlflow(settings_of(tmp_path, mlflow_tracking_uri=f"http://user:pa55@127.0.0.1:{port}"))
        with pytest.raises(NoAnswer, match="does not answer"):
            ask_json(f"http://127.0.0.1:{port}/")
    assert not found.is_well and f"http://127.0.0.1:{port}" in found.text and "pa55" not in found.text + found.mend


@pytest.mark.parametrize(
    ("body", "is_well", "text"),
    [
        (
            b'{"status": "ready", "checks": {"model": {"ok": true, "detail": "tfidf_model version 3"}}}',
            True,
            "version 3",
        ),
        (b"[]", False, "another program"),
    ],
)
def test_the_api_is_asked_for_what_needs_no_login(tmp_path: Path, body: bytes, is_well: bool, text: str) -> None:
    with answering(body) as port:
        (found,) = api(settings_of(tmp_path, api_port=port, require_login=True))
    assert found.is_well == is_well and text in found.text


def test_mlflow_is_asked_with_the_user_and_password_of_its_address(tmp_path: Path) -> None:
    asked: list[str | None] = []

    class Guarded(Handler):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            self.say(200, b"3.17.2")

    with served(Guarded) as address:
        uri = address.replace("://", "://user:pa55@")
        (found,) = mlflow(settings_of(tmp_path, mlflow_tracking_uri=uri))
    assert found.is_well and "pa55" not in found.text and asked == ["Basic dXNlcjpwYTU1"]


def test_the_command_ends_with_1_for_a_fault_and_speaks_json(tmp_path: Path) -> None:
    environment = os.environ | {"BOOKCLUB_HOME": str(tmp_path), "BOOKCLUB_SHOP_URL": "http://127.0.0.1:9"}
    done = subprocess.run([*BOOKCLUB, "doctor", "--json"], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert rows[0]["part"] == "versions" and rows[0]["is_well"] and sys.executable in rows[0]["text"]
    assert {"part", "is_well", "text", "mend"} == set(rows[-1])
