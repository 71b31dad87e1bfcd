"""lost_runs.py: a run whose process was killed counts as failed, and no other does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import EngineEventData

from bookclub_platform import lost_runs
from bookclub_platform.lost_runs import HOST_TAG, end_lost_runs, tags_of_this_process
from bookclub_platform_tests.waiting import wait_for


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@dg.job
def job() -> None:
    return None


def started(instance: dg.DagsterInstance, pid: int | None, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    if pid is not None:
        instance.report_engine_event("Executing steps", run, EngineEventData.in_process(pid))
    return run.run_id


def test_a_run_whose_process_is_killed_counts_as_failed(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(instance, process.pid, tags_of_this_process())
    process.kill()
    assert end_lost_runs(instance) == [], "it may just be about to note its own end"
    monkeypatch.setattr(lost_runs, "_GRACE_S", 0.0)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert end_lost_runs(instance) == [run_id], "a process that nobody waited for yet is gone all the same"
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert end_lost_runs(instance) == []


def test_runs_that_live_or_that_nobody_here_can_judge_stay(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lost_runs, "_GRACE_S", 0.0)
    started(instance, process.pid, tags_of_this_process())
    process_that_ended = subprocess.Popen([sys.executable, "-c", ""])
    process_that_ended.wait()
    started(instance, process_that_ended.pid, {HOST_TAG: "another-host"})
    started(instance, process_that_ended.pid, {})
    started(instance, None, tags_of_this_process())
    assert end_lost_runs(instance) == []


def test_a_later_process_with_the_same_number_is_another(
    instance: dg.DagsterInstance, process: subprocess.Popen[bytes]
) -> None:
    created = psutil.Process(process.pid).create_time()
    assert lost_runs._is_alive(process.pid, created + 1)
    assert not lost_runs._is_alive(process.pid, created - 100)


def test_a_run_that_was_never_begun_is_cancelled(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    run = instance.create_run_for_job(job, tags=tags_of_this_process())
    instance.create_run_for_job(job, tags={"dagster/schedule_name": "daily_crawl"})  # the daemon starts its own
    assert end_lost_runs(instance) == [], "its command may be about to begin it"
    monkeypatch.setattr(lost_runs, "_UNSTARTED_S", 0.0)
    assert end_lost_runs(instance) == [run.run_id]
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None and ended.status == dg.DagsterRunStatus.CANCELED
