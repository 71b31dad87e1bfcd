"""`bookclub up`, which `make run` calls: it comes up, answers, ends whole, and survives being killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from bookclub_platform_tests.local_http import free_port
from bookclub_platform_tests.test_build import BOOKCLUB

START_S = 120.0
COMMAND = Path(sys.executable).with_name("bookclub")
# What one part or another imports early; a file of that name in the folder that we are in is not what is meant.
PACKAGES = ("gql", "alembic", "uvicorn", "pandas", "sqlalchemy", "serving", "mlflow", "dagster")


class Platform:
    """A `bookclub up` on a small sandbox shop and ports of its own, in a folder with misleading files."""

    def __init__(self, home: Path) -> None:
        names = ["API", "DAGSTER", "MLFLOW", "SANDBOX"]
        self.home, self.folder = home, home / "elsewhere"
        self.folder.mkdir()
        for package in PACKAGES:
            (self.folder / f"{package}.py").write_text(f"raise SystemExit('{package}.py was run')")
        self.ports = {name: free_port() for name in names}
        self.environment = os.environ | {
            "BOOKCLUB_HOME": str(home),
            "BOOKCLUB_SANDBOX_BOOKS": "60",
            **{f"BOOKCLUB_{name}_PORT": str(port) for name, port in self.ports.items()},
        }

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [COMMAND, "up"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def url(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}{path}"


def read_until_ready(process: subprocess.Popen[str]) -> str:
    """What it printed up to the line that says it is ready."""
    assert process.stdout is not None
    deadline, printed = time.monotonic() + START_S, ""
    for line in process.stdout:
        printed += line
        if line.startswith("Ready after"):
            return printed
        assert time.monotonic() < deadline, printed
    raise AssertionError(f"it ended with {process.wait()}:\n{printed}")


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    leader = psutil.Process(process.pid)
    return [leader, *leader.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    platform = Platform(tmp_path_factory.mktemp("up"))
    yield platform
    for path in platform.home.glob("children.json"):  # a failed test must not leave servers behind
        for row in json.loads(path.read_text()):
            os.killpg(row["pid"], signal.SIGKILL)


def test_it_builds_answers_and_ends_whole_on_sigterm(platform: Platform) -> None:
    with platform.start() as process:
        printed = read_until_ready(process)
        question = re.search(r"\$ curl '(\S+)'", printed)
        assert question, printed
        answer = requests.get(question[1], timeout=10).json()
        assert answer["items"][0]["book"]["title"] in printed
        for url in (
            platform.url("API", "/docs"),
            platform.url("DAGSTER", "/server_info"),
            platform.url("MLFLOW", "/health"),
            platform.url("SANDBOX", "/"),
        ):
            assert requests.get(url, timeout=10).ok, url
        assert run_tells_who_runs(platform, process.pid)
        logs = [path.read_text() for path in platform.home.glob("logs/*.log")]
        assert len(logs) == 4 and not [text for text in [printed, *logs] if "was run" in text]

        members = family(process)
        assert len(members) > 6
        process.terminate()
        assert process.wait(10) == 0
        assert alive(members) == []
        assert not any(is_open(port) for port in platform.ports.values())


def run_tells_who_runs(platform: Platform, pid: int) -> bool:
    second = subprocess.run([*BOOKCLUB, "up"], env=platform.environment, capture_output=True, text=True, timeout=30)
    return second.returncode == 1 and "already runs" in second.stderr and str(pid) in second.stderr


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_after_a_kill_the_next_start_ends_what_was_left_and_needs_no_build(platform: Platform) -> None:
    with platform.start() as process:
        read_until_ready(process)
        members = family(process)
        process.kill()
        process.wait(10)
    left = alive(members)
    assert left, "the children of a killed start should still be there"
    with platform.start() as process:
        printed = read_until_ready(process)
        assert "left behind" in printed
        assert "Building" not in printed
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        assert process.wait(10) == 0
    assert alive(left) == []


@pytest.mark.parametrize("name", ["API", "DAGSTER", "MLFLOW", "SANDBOX"])
def test_a_taken_port_is_told_by_its_setting(tmp_path: Path, name: str) -> None:
    platform = Platform(tmp_path)
    with socket.create_server(("127.0.0.1", platform.ports[name])):
        done = subprocess.run([*BOOKCLUB, "up"], env=platform.environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert f"BOOKCLUB_{name}_PORT" in done.stderr
    assert str(platform.ports[name]) in done.stderr


def test_dagster_accepts_the_definitions_in_the_project_folder() -> None:
    top = Path(__file__).parents[1]
    dg = Path(sys.executable).with_name("dg")
    done = subprocess.run([dg, "check", "defs"], cwd=top, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
