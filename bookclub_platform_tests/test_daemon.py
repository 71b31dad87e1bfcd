"""A real `dagster-daemon` on a real Postgres: sensors tick at once, and a schedule at its minute.

Takes up to a minute and a half, nearly all of it waiting: a schedule cannot be finer than a minute.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.local.home import dagster_home, project_file
from bookclub_platform.local.postgres import leased
from bookclub_platform.schedules import run_in_progress
from bookclub_platform_tests.local_http import in_thread
from bookclub_platform_tests.test_alarms import Receiver, failed_run
from bookclub_platform_tests.waiting import wait_for

FAILED = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])


@contextmanager
def daemon(instance_folder: Path, log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", str(project_file("workspace.yaml"))]
    with (
        log.open("w") as output,
        subprocess.Popen(
            command,
            env=os.environ | {"DAGSTER_HOME": str(instance_folder)},
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def test_the_daemon_finds_categories_tells_of_failures_and_crawls_at_its_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "daemon.log"
    home = tmp_path / "home"
    with sandbox.running(books=40, seed=2) as shop_url, leased(home) as url, in_thread(Receiver()) as receiver:
        for name, value in {
            "HOME": str(home),
            "SHOP_URL": shop_url,
            "DATABASE_URL": url,
            "ALARM_WEBHOOK": receiver.url,
            "CRAWL_SCHEDULE": "* * * * *",
        }.items():
            monkeypatch.setenv(f"BOOKCLUB_{name}", value)
        definitions = build_definitions(load_settings())
        assert definitions.resolve_schedule_def("daily_crawl").cron_schedule == "* * * * *"
        folder = dagster_home(home)
        with dg.DagsterInstance.from_config(str(folder)) as instance:
            failed = failed_run(shop_url, instance)
            with daemon(folder, log):
                wait_for(lambda: len(instance.get_dynamic_partitions(CATEGORIES)) > 10, 60, log=log, pause_s=0.3)
                wait_for(lambda: receiver.taken, 60, log=log, pause_s=0.3)
                assert receiver.taken[0]["id"] == f"run {failed}"
                crawls = dg.RunsFilter(tags={"dagster/schedule_name": "daily_crawl"})
                wait_for(lambda: instance.get_runs(crawls), 75, log=log, pause_s=0.3)
                wait_for(lambda: instance.get_runs(crawls)[-1].is_finished, 60, log=log, pause_s=0.3)
                run = instance.get_runs(crawls)[-1]
                assert run.status == dg.DagsterRunStatus.SUCCESS
                assert run.tags["dagster/asset_partition_range_start"] == "mars"
                assert run_in_progress(instance, "retrain", dg.AssetKey("tfidf_model")) is None
                loaded = instance.get_materialized_partitions(dg.AssetKey("books"))
                assert loaded >= set(instance.get_dynamic_partitions(CATEGORIES)) - {"mars"}
            assert [run.run_id for run in instance.get_runs(FAILED)] == [failed]
