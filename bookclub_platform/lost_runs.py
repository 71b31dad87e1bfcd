"""Runs whose process is gone -> marked as failed within a minute, so that they are told of, and tried once more.

Dagster's code server notices when a run that it started dies before it. When both die (power, kill -9 of everything),
or the run is one of `bookclub build`, nobody does: the run stays "started" for good, keeps its place in the pool of its
source, and every later crawl waits behind it.
"""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import psutil
from dagster._core.storage.tags import GRPC_INFO_TAG

HOST_TAG = "bookclub/host"
_GRACE_S = 10.0
_UNSTARTED_S = 600.0  # a command begins its run at once


def tags_of_this_process() -> dict[str, str]:
    """Tags for a run in our own process: where its process can be looked for, and that nobody else tries it again."""
    return {HOST_TAG: socket.gethostname(), "dagster/max_retries": "0"}


def lost_runs_sensor() -> dg.SensorDefinition:
    """Looks after the runs of this machine: those that the code server started, and our own commands'."""

    @dg.sensor(
        name="lost_runs",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks a run as failed when its process is gone (kill -9, power), so that it is tried again and "
        "nothing waits for it.",
    )
    def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        ended = end_lost_runs(context.instance)
        for run_id in ended:
            context.log.error(f"The process of run {run_id} is gone; it counts as failed now.")
        return dg.SkipReason(f"Runs without a process: {', '.join(ended) or 'none'}.")

    return lost_runs


def end_lost_runs(instance: dg.DagsterInstance, grace_s: float | None = None) -> list[str]:
    """Mark each started run of this machine whose process is gone as failed -> their ids. One that has said something
    within `grace_s` (None: _GRACE_S) may be about to note its end."""
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        is_ours = GRPC_INFO_TAG in run.tags or run.tags.get(HOST_TAG) == socket.gethostname()
        process = _process_of(instance, run.run_id) if is_ours else None
        if process is None or _is_alive(*process, grace_s):
            continue
        current = instance.get_run_by_id(run.run_id)
        if current is not None and current.status == dg.DagsterRunStatus.STARTED:  # it may have ended meanwhile
            instance.report_run_failed(
                current, f"Its process (pid {process[0]}) is gone: it was killed, or the machine was."
            )
            ended.append(run.run_id)
    return [*ended, *_end_unstarted(instance)]


def _end_unstarted(instance: dg.DagsterInstance) -> list[str]:
    """Cancel runs of our own commands that were made and never begun, for the command was killed between the two."""
    long_ago = datetime.now(UTC) - timedelta(seconds=_UNSTARTED_S)
    unstarted = dg.RunsFilter(
        statuses=[dg.DagsterRunStatus.NOT_STARTED], tags={HOST_TAG: socket.gethostname()}, created_before=long_ago
    )
    runs = instance.get_runs(unstarted)
    for run in runs:
        instance.report_run_canceled(run, "It was never begun: the command that made it was killed.")
    return [run.run_id for run in runs]


def _process_of(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """(pid, when it was noted) of the newest process that said it executes the run; None while none has."""
    events = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT, ascending=False).records
    for record in events:
        event = record.event_log_entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event is not None else None
        if pid is not None:
            return int(str(pid.value)), record.event_log_entry.timestamp
    return None


def _is_alive(pid: int, noted_at: float, grace_s: float | None = None) -> bool:
    """Whether `pid` is still the process of then."""
    if time.time() - noted_at < (_GRACE_S if grace_s is None else grace_s):
        return True
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= noted_at
    except psutil.NoSuchProcess:
        return False
