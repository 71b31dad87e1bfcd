"""POST /crawls against a real Dagster webserver, which runs the real job on the sandbox shop."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform import sandbox, users
from bookclub_platform.assets._common import CATEGORIES
from bookclub_platform.core import tables
from bookclub_platform.local.home import project_file
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import problem
from bookclub_platform_tests.local_http import Handler, served
from bookclub_platform_tests.waiting import wait_for
from serving.app import create_app

NOWHERE = "http://127.0.0.1:1"
PASSWORD = "four words of mine"
# Without a queue no daemon is needed, which would look at it every few seconds.
INSTANCE = """
telemetry:
  enabled: false
run_coordinator:
  module: dagster.core.run_coordinator
  class: DefaultRunCoordinator
"""


class Stage(NamedTuple):
    client: httpx.Client
    database_url: str
    admin: dict[str, str]
    keys: list[str]
    log: Path


@pytest.fixture(scope="module")
def stage(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home, instance_folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("dagster")
    (instance_folder / "dagster.yaml").write_text(INSTANCE)
    port = given.free_port()
    settings = given.settings(home, model_poll_s=60, database_url=database_url, dagster_url=f"http://127.0.0.1:{port}")
    users.add(settings, "boss", PASSWORD, is_admin=True)
    with (
        sandbox.running(books=40, seed=2) as shop_url,
        dg.DagsterInstance.from_config(str(instance_folder)) as instance,
    ):
        with httpx.Client(base_url=shop_url) as shop:
            links = [part.split("/")[0] for part in shop.get("/").text.split("catalogue/category/books/")[1:]]
        keys = sorted({link.rpartition("_")[0] for link in links})[:3]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        environment = os.environ | {
            "DAGSTER_HOME": str(instance_folder),
            "BOOKCLUB_HOME": str(home),
            "BOOKCLUB_SHOP_URL": shop_url,
            "BOOKCLUB_DATABASE_URL": database_url,
        }
        command = [sys.executable, "-m", "dagster_webserver", "-h", "127.0.0.1", "-p", str(port)]
        command += ["-w", str(project_file("workspace.yaml"))]
        with (instance_folder / "log").open("wb") as log:
            webserver = subprocess.Popen(command, env=environment, cwd=instance_folder, stdout=log, stderr=log)
        try:
            wait_for(lambda: given.is_up(f"http://127.0.0.1:{port}/server_info"), 90)
            with given.serving(create_app(settings, database_url, NOWHERE)) as client:
                login = client.post("/login", data={"username": "boss", "password": PASSWORD})
                yield Stage(
                    client,
                    database_url,
                    {"authorization": f"Bearer {login.json()['access_token']}"},
                    keys,
                    instance_folder / "log",
                )
        finally:
            webserver.terminate()
            webserver.wait(20)


def test_a_crawl_is_started_and_followed_until_its_books_are_there(stage: Stage) -> None:
    chosen = [stage.keys[0], stage.keys[2]]  # no neighbours, so two runs
    started = stage.client.post("/crawls", json={"categories": chosen}, headers=stage.admin, timeout=60)
    assert started.status_code == 202, started.text
    crawl = started.json()
    assert [(run["first"], run["last"]) for run in crawl["runs"]] == [(key, key) for key in chosen]
    assert started.headers["location"] == f"/crawls/{crawl['id']}"

    def status() -> str:
        found: str = stage.client.get(f"/crawls/{crawl['id']}", headers=stage.admin).json()["status"]
        return found

    wait_for(lambda: status() not in {"queued", "running"}, 90, log=stage.log, pause_s=0.2)
    assert status() == "succeeded", stage.log.read_text()[-3000:]
    ended = stage.client.get(f"/crawls/{crawl['id']}", headers=stage.admin).json()["runs"]
    assert all(run["started_at"] <= run["ended_at"] for run in ended)
    found = {row.category for row in given.read(stage.database_url, sa.select(tables.books.c.category).distinct())}
    assert found == set(chosen) == {row["category"] for row in stage.client.get("/categories").json()["items"]}


def test_only_administrators_crawl_and_only_what_there_is(stage: Stage) -> None:
    problem(stage.client.post("/crawls", json={}), 401)
    made = stage.client.post("/register", json={"username": "reader", "password": PASSWORD}).json()
    reader = {"authorization": f"Bearer {made['access_token']}"}
    assert "admin" in problem(stage.client.post("/crawls", json={}, headers=reader), 403)["detail"]
    problem(stage.client.get(f"/crawls/{uuid.uuid4()}", headers=reader), 403)
    unknown = stage.client.post("/crawls", json={"categories": ["no-such"]}, headers=stage.admin)
    assert "no-such" in problem(unknown, 404)["detail"]
    problem(stage.client.get(f"/crawls/{uuid.uuid4()}", headers=stage.admin), 404)
    problem(stage.client.get("/crawls/7", headers=stage.admin), 422)


class Half(Handler):
    """A Dagster whose second run of a request fails, with what it says of its own machine; `heard` is what it got."""

    heard: ClassVar[list[tuple[dict[str, str], Any]]] = []

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.heard.append(({name.lower(): value for name, value in self.headers.items()}, asked))
        nodes = [{"assetKey": {"path": ["books"]}, "partitionKeys": ["a", "b", "c"]}]
        runs = [{"__typename": "LaunchRunSuccess"}, {"__typename": "PythonError", "message": "/srv/dagster: disk full"}]
        data = {
            "repositoryOrError": {"__typename": "Repository", "assetNodes": nodes},
            "launchMultipleRuns": {"__typename": "LaunchMultipleRunsResult", "launchMultipleRunsResult": runs},
        }
        self.say(200, json.dumps({"data": data}).encode())


def test_of_a_crawl_that_began_in_part_the_id_is_told_and_dagster_is_told_of_the_trace(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="bookclub.audit")
    with served(Half) as address:
        settings = given.settings(tmp_path, model_poll_s=60, database_url=database_url, dagster_url=address)
        users.add(settings, "half", PASSWORD, is_admin=True)
        with given.serving(create_app(settings, database_url, NOWHERE)) as client:
            login = client.post("/login", data={"username": "half", "password": PASSWORD})
            headers = {"authorization": f"Bearer {login.json()['access_token']}", "x-request-id": "asked-for"}
            headers["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
            answer = client.post("/crawls", json={"categories": ["a", "c"]}, headers=headers)
    told = problem(answer, 503)
    sent, asked = Half.heard[-1]
    params = asked["variables"]["params"]
    tags = [{tag["key"]: tag["value"] for tag in one["executionMetadata"]["tags"]} for one in params]
    assert [tag["dagster/asset_partition_range_start"] for tag in tags] == ["a", "c"], "both by one request"
    assert told["crawl_id"] == tags[0]["bookclub/crawl"] and f"/crawls/{told['crawl_id']}" in told["detail"]
    assert "disk full" in caplog.text and "disk full" not in answer.text and "/srv" not in answer.text
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "bookclub.audit"]
    (act,) = [line for line in lines if line["act"] == "start-crawl"]
    assert act["crawl"] == told["crawl_id"] and act["outcome"] == "done" and act["user_id"]
    assert len(Half.heard) == 2
    for sent, _ in Half.heard:
        version, trace, span, flags = sent["traceparent"].split("-")
        assert (version, trace, flags) == ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01")
        assert span != "00f067aa0ba902b7" and sent["x-request-id"] == "asked-for"


def test_without_dagster_a_crawl_is_a_503_that_says_so(stage: Stage, tmp_path: Path) -> None:
    settings = given.settings(tmp_path, model_poll_s=60, database_url=stage.database_url, dagster_url=NOWHERE)
    with given.serving(create_app(settings, stage.database_url, NOWHERE)) as client:
        login = client.post("/login", data={"username": "boss", "password": PASSWORD})
        answer = client.post("/crawls", json={}, headers={"authorization": f"Bearer {login.json()['access_token']}"})
    assert problem(answer, 503)["type"].endswith(":dagster-unavailable") and answer.headers["retry-after"] == "10"
