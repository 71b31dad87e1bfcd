"""The API as a process of its own: what it loads, what it needs to start, how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, ids_of

world = given.world

ROOT = Path(__file__).parents[1]

# `python -m serving` where, as in the serving image, these cannot be imported; tells at the end who tried.
WITHOUT_THE_PLATFORM = """
import json, sys
from importlib.abc import MetaPathFinder
from pathlib import Path

ABSENT = {"dagster", "dagster_postgres", "pandas", "sklearn", "scipy", "numba", "mlflow", "flask", "psycopg2"}
ABSENT |= {"pyspark"}
tried = set()

class Absent(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ABSENT:
            tried.add(name.partition(".")[0])
            raise ModuleNotFoundError(f"{name} is not in the serving image", name=name)

sys.meta_path.insert(0, Absent())
from serving.__main__ import main

try:
    main()
finally:
    Path(sys.argv[1]).write_text(json.dumps(sorted(tried)))
"""


@contextmanager
def process(command: list[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BOOKCLUB_HOME": str(folder)} | variables
    started = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def test_it_recommends_where_what_trains_is_not_installed_and_ends_by_ctrl_c(world: World, tmp_path: Path) -> None:
    port, tried = given.free_port(), tmp_path / "tried.json"
    addresses = {"BOOKCLUB_DATABASE_URL": world.database_url, "MLFLOW_TRACKING_URI": world.tracking_uri}
    command = ["-c", WITHOUT_THE_PLATFORM, str(tried)]
    with process(command, tmp_path, BOOKCLUB_API_PORT=str(port), **addresses) as serving:
        given.wait_for(lambda: given.is_up(f"http://127.0.0.1:{port}/ready"), 60)
        answer = httpx.get(f"http://127.0.0.1:{port}/books/{ids_of(world)[0]}/recommendations").json()
        assert len(answer["items"]) == 10
        serving.send_signal(signal.SIGINT)
        output, _ = serving.communicate(timeout=10)
    assert serving.returncode == 0 and "Traceback" not in output, output
    assert json.loads(tried.read_text()) == []


def test_missing_addresses_are_all_named_at_once(tmp_path: Path) -> None:
    with process(["-m", "serving"], tmp_path) as serving:
        output, _ = serving.communicate(timeout=30)
    assert serving.returncode == 1
    assert "BOOKCLUB_DATABASE_URL and MLFLOW_TRACKING_URI must be set" in output and "Traceback" not in output


def test_a_taken_port_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    addresses = {"BOOKCLUB_DATABASE_URL": "postgresql://127.0.0.1/none", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(["-m", "serving"], tmp_path, BOOKCLUB_API_PORT=port, **addresses) as serving:
            output, _ = serving.communicate(timeout=30)
    assert serving.returncode == 1
    assert f"127.0.0.1:{port} is taken" in output and "BOOKCLUB_API_PORT" in output and "Traceback" not in output


def test_it_starts_and_ends_while_postgres_and_mlflow_are_away(tmp_path: Path) -> None:
    port = given.free_port()
    addresses = {"BOOKCLUB_DATABASE_URL": "postgresql://127.0.0.1:1/none", "MLFLOW_TRACKING_URI": "http://127.0.0.1:1"}
    with process(["-m", "serving"], tmp_path, BOOKCLUB_API_PORT=str(port), **addresses) as serving:
        given.wait_for(lambda: given.is_up(f"http://127.0.0.1:{port}/health"), 30)
        ready = httpx.get(f"http://127.0.0.1:{port}/ready")
        serving.terminate()
        output, _ = serving.communicate(timeout=10)
    assert ready.status_code == 503
    failed = {name for name, check in ready.json()["checks"].items() if not check["ok"]}
    assert failed == {"database", "model", "registry"}, "books are read once there is a model"
    assert serving.returncode == -signal.SIGTERM and "Traceback" not in output, output
