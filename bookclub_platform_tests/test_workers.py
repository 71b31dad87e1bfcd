"""Several processes that answer as one: quotas, figures and swaps are of all of them, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil
import pytest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, ids_of
from bookclub_platform_tests.test_serving_imports import process
from serving.monitoring.figures import SharedFigures

world, after = given.world, given.after

ROOT = Path(__file__).parents[1]
QUOTA = 40
OWN_MB = 75 if sys.platform == "linux" else 110  # of a worker that has answered little


class Running(NamedTuple):
    """`parent` is what SIGTERM is sent to."""

    url: str
    parent: subprocess.Popen[str]
    folder: Path

    @property
    def workers(self) -> list[psutil.Process]:
        supervisor = psutil.Process(self.parent.pid)
        forking = [child for child in supervisor.children() if "forkserver" in " ".join(child.cmdline())]
        found = [child for child in (*forking, supervisor)[0].children() if _lives(child)]
        return [child for child in found if "resource_tracker" not in " ".join(child.cmdline())]

    def ask(self, path: str, times: int = 1) -> list[httpx.Response]:
        """Over a connection of its own each, many at once: so that every worker gets some."""
        with ThreadPoolExecutor(16) as threads:
            # verify=False: to read all certificates for each of them takes longer than the answers.
            return list(threads.map(lambda _: httpx.get(f"{self.url}{path}", timeout=20, verify=False), range(times)))

    def count(self, route: str) -> float:
        """Requests to `route` by what one of the workers says."""
        text = self.ask("/metrics")[0].text
        samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
        return sum(
            one.value
            for one in samples
            if one.name == "bookclub_http_request_seconds_count" and one.labels["route"] == route
        )

    def own_counts(self, route: str) -> list[float]:
        """The same as each worker has put it down."""
        found = []
        for path in self.folder.glob("bookclub-figures-*/*.json"):
            families = {name: samples for name, _, _, samples in json.loads(path.read_text())}
            counted = [sample for sample in families["bookclub_http_request_seconds"] if sample[0].endswith("_count")]
            found.append(sum(value for _, labels, value in counted if labels["route"] == route))
        return found


@contextmanager
def two_workers(world: World, folder: Path, **variables: str) -> Iterator[Running]:
    port = given.free_port()
    given_too = {
        "BOOKCLUB_DATABASE_URL": world.database_url,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
        "BOOKCLUB_API_PORT": str(port),
        "BOOKCLUB_API_WORKERS": "2",
        "BOOKCLUB_ANONYMOUS_PER_MINUTE": "0",
        "BOOKCLUB_MODEL_POLL_S": "0.2",
        "TMPDIR": str(folder),
    }
    with process(["-m", "serving"], folder, **(given_too | variables)) as parent:
        running = Running(f"http://127.0.0.1:{port}", parent, folder)
        given.wait_for(lambda: given.is_up(f"{running.url}/ready"), 60)
        given.wait_for(lambda: len(list(folder.glob("bookclub-figures-*/*.json"))) == 2, 60)
        yield running


@pytest.fixture(scope="module")
def running(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with two_workers(world, tmp_path_factory.mktemp("workers")) as started:
        yield started


def test_every_worker_tells_the_figures_of_all(running: Running) -> None:
    route = "/categories"
    answers = running.ask(route, 200)
    assert {answer.status_code for answer in answers} == {200}
    given.wait_for(lambda: sum(running.own_counts(route)) == 200)
    assert min(running.own_counts(route)) > 0  # or this would prove nothing
    assert {running.count(route) for _ in range(10)} == {200.0}


def test_a_new_champion_answers_in_every_worker_within_seconds(after: World, running: Running) -> None:
    path = f"/books/{ids_of(after)[0]}/recommendations"

    def versions() -> set[str]:
        return {answer.headers["bookclub-model"] for answer in running.ask(path, 32)}

    given.wait_for(lambda: versions() == {f"tfidf_model/{after.first.version}"})
    after.registry.promote(after.sea)
    given.wait_for(lambda: versions() == {f"tfidf_model/{after.sea.version}"}, 5)


def test_an_extra_worker_takes_little_memory(running: Running) -> None:
    for worker in running.workers:
        assert worker.memory_full_info().uss < OWN_MB * 2**20


@pytest.mark.skipif(sys.platform != "linux", reason="what is kept is glibc's to say")
def test_what_passwords_took_to_hash_is_given_back() -> None:
    code = """
import threading, psutil
from bookclub_platform.core.passwords import hash_password
from serving.process import malloc
malloc.limit()
def own_mb(): return psutil.Process().memory_full_info().uss / 2**20
hash_password("nineteen green kettles")
before = own_mb()
threads = [threading.Thread(target=lambda: [hash_password("nineteen green kettles") for _ in range(3)]) for _ in "ab"]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(own_mb() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert float(done.stdout) < 10


def test_a_worker_that_dies_is_replaced_and_its_figures_stay(world: World, tmp_path: Path) -> None:
    with two_workers(world, tmp_path, BOOKCLUB_ANONYMOUS_PER_MINUTE=str(QUOTA)) as running:
        statuses = [answer.status_code for answer in running.ask("/books", 3 * QUOTA)]
        # If asking takes longer than a minute, the first requests leave the window and some more pass.
        assert QUOTA <= statuses.count(200) <= QUOTA + 5 and set(statuses) == {200, 429}
        given.wait_for(lambda: sum(running.own_counts("/books")) == statuses.count(200))
        assert min(running.own_counts("/books")) > 0
        before = {worker.pid for worker in running.workers}
        os.kill(min(before), signal.SIGKILL)
        given.wait_for(lambda: len({worker.pid for worker in running.workers} - before) == 1, 30)
        given.wait_for(lambda: given.is_up(f"{running.url}/ready"), 60)
        assert running.count("/books") == statuses.count(200)
        workers = running.workers
        running.parent.send_signal(signal.SIGTERM)
        output, _ = running.parent.communicate(timeout=30)
        assert running.parent.returncode == 0 and "Traceback" not in output, output
        assert not [worker for worker in workers if worker.is_running()]
        assert not list(tmp_path.glob("bookclub-figures-*"))
        with pytest.raises(httpx.ConnectError):
            httpx.get(running.url)


def _lives(worker: psutil.Process) -> bool:
    return worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE


def test_what_a_worker_that_ended_had_counted_stays_and_what_it_held_does_not(tmp_path: Path) -> None:
    shared = SharedFigures(tmp_path)
    shared.write([CounterMetricFamily("asked", "", 2), GaugeMetricFamily("bookclub_database_up", "", 0)])
    (tmp_path / f"{os.getpid()}.json").rename(tmp_path / "1.json")
    os.utime(tmp_path / "1.json", (0, 0))
    own = [CounterMetricFamily("asked", "", 3), GaugeMetricFamily("bookclub_database_up", "", 1)]
    found = {sample.name: sample.value for family in shared.together(own) for sample in family.samples}
    assert found == {"asked_total": 5, "bookclub_database_up": 1}


def test_a_port_that_is_taken_is_told_once_whatever_the_number_of_workers(world: World, tmp_path: Path) -> None:
    port = given.free_port()
    variables = {
        "BOOKCLUB_DATABASE_URL": world.database_url,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
        "BOOKCLUB_API_PORT": str(port),
        "BOOKCLUB_API_WORKERS": "2",
        "BOOKCLUB_HOME": str(tmp_path),
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    with given.socket.create_server(("127.0.0.1", port)):
        done = subprocess.run(
            [sys.executable, "-m", "serving"], env=os.environ | variables, capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 1 and done.stderr.count("BOOKCLUB_API_PORT") == 1


def test_no_worker_outlives_a_parent_that_was_killed(running: Running) -> None:
    """The last that is done to it."""
    workers = running.workers
    assert len(workers) == 2
    running.parent.kill()
    given.wait_for(lambda: not any(_lives(worker) for worker in workers), 20)
