"""Dagster's events -> an alarm for each failed run and each failed check -> the log, and BOOKCLUB_ALARM_WEBHOOK.

    events since the last tick -> core/alarms.py's outbox -> POST, retried by each tick until the webhook takes it

One message per failure: a check that fails in many categories of a run is told once, with all of them; a run that only
its blocking check has stopped is told by the check.

The cursor moves on only when the alarms are in the outbox, and there each has one row: a tick that dies loses none.
"""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.storage.tags import WILL_RETRY_TAG

from bookclub_platform.assets._checks import FAILED_CATEGORIES
from bookclub_platform.core.alarms import Alarm, Delivery, deliver, put, redacted
from bookclub_platform.core.categories import retired_slugs
from bookclub_platform.core.settings import Settings
from bookclub_platform.failures import Failure, facts, run_cause, standing_failures, what_to_do
from bookclub_platform.resources import BooksDatabase

_FIRST_LOOK_BACK = timedelta(days=1)
# Postgres gives out ids before it commits: what is younger is read again, and the outbox knows what it has.
_UNSETTLED_S = 60.0
# A night of 50 categories brings 450 evaluations; what a tick does not reach waits until those before it are settled.
_MOST_EVENTS = 2000
_NAMED = 10  # of the categories in which a check failed
_POST_TIMEOUT_S = 5.0


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """urllib would ask again with GET, and the page that it then gets would count as delivered."""


def alarms_sensor(settings: Settings) -> dg.SensorDefinition:
    """Tells of each failure once; what the webhook does not take stays in the outbox for the next tick."""
    webhook = settings.alarm_webhook.get_secret_value() if settings.alarm_webhook is not None else None
    dagster_url = f"http://127.0.0.1:{settings.dagster_port}"

    @dg.sensor(
        name="alarms",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="One message for each failed run and each failed check, to the log and, where "
        "BOOKCLUB_ALARM_WEBHOOK is set, to a chat. What the webhook does not take is sent again, in order.",
    )
    def alarms(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        found, cursor = new_alarms(context.instance, graph, context.cursor, dagster_url, _secrets(settings))
        now = datetime.now(UTC)
        database = BooksDatabase()
        with database.begin() as connection:
            new = put(connection, found, now)
        for alarm in new:
            context.log.error(alarm.message()["text"])
        context.update_cursor(cursor)
        delivery = deliver(database.engine, _sender(webhook), now)
        if delivery.error:
            context.log.error(f"The webhook did not take an alarm: {redacted(delivery.error, _secrets(settings))}")
        return dg.SkipReason(_summary(len(new), delivery, webhook is not None))

    return alarms


def _summary(new: int, delivery: Delivery, has_webhook: bool) -> str:
    if not has_webhook:
        return f"{new} new alarms, told in the log alone: BOOKCLUB_ALARM_WEBHOOK is not set."
    return f"{new} new alarms, {delivery.delivered} delivered, {delivery.pending} wait for the webhook."


def _secrets(settings: Settings) -> list[str]:
    """What must not stand in a message, whatever error quotes it."""
    secrets = [settings.alarm_webhook.get_secret_value()] if settings.alarm_webhook is not None else []
    for url in (settings.database_url, settings.mlflow_tracking_uri):
        password = urllib.parse.urlsplit(url or "").password
        secrets += [password, urllib.parse.unquote(password)] if password else []
    return secrets


def _told_by_the_log(message: dict[str, Any]) -> None:
    """Nobody else waits for it."""


def _sender(webhook: str | None) -> Callable[[dict[str, Any]], None]:
    """Who posts a message."""

    def post(message: dict[str, Any]) -> None:
        assert webhook is not None
        body = json.dumps(message, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "bookclub-platform"}
        try:
            request = urllib.request.Request(webhook, data=body, headers=headers, method="POST")
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=_POST_TIMEOUT_S):
                pass  # the status is the answer: a body that breaks off does not mean that nobody has the message
        except (http.client.HTTPException, ValueError) as error:
            # Without its text, which may quote the address, and with it the secret.
            raise OSError(f"{type(error).__name__}: it does not answer in HTTP, or its address is not valid") from None

    return post if webhook is not None else _told_by_the_log


def new_alarms(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, cursor: str | None, dagster_url: str, secrets: Sequence[str]
) -> tuple[list[Alarm], str]:
    """The alarms of what failed after `cursor`, in the order of the events, and the next cursor. Without one: of the
    last day."""
    now = datetime.now(UTC)
    first = {"run": 0, "check": 0, "since": int((now - _FIRST_LOOK_BACK).timestamp())}
    after: dict[str, int] = json.loads(cursor) if cursor else first
    since, storage = float(after["since"]), instance.event_log_storage
    runs = storage.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(
            dg.DagsterEventType.RUN_FAILURE, after_timestamp=since, after_storage_id=after["run"]
        ),
        limit=_MOST_EVENTS,
        ascending=True,
    ).records
    checks = storage.get_event_records(
        dg.EventRecordsFilter(
            dg.DagsterEventType.ASSET_CHECK_EVALUATION,
            after_timestamp=since,
            after_cursor=after["check"],
        ),
        limit=_MOST_EVENTS,
        ascending=True,
    )
    failed_checks = [record for record in checks if _has_failed(record)]
    many = _of_many(instance, failed_checks)
    found = [
        *(
            _run_alarm(instance, graph, record, dagster_url, secrets)
            for record in runs
            if not _is_stopped_by_check(instance, record.run_id)
        ),
        *(
            _check_alarm(graph, record, dagster_url, secrets)
            for record in failed_checks
            if record.run_id not in many or _evaluation_of(record).partition is None
        ),
    ]
    for kind, records in (("run", runs), ("check", checks)):
        settled = [record.storage_id for record in records if record.timestamp < now.timestamp() - _UNSETTLED_S]
        after[kind] = max([after[kind], *settled])
    return sorted(found, key=lambda alarm: alarm.raised_at), json.dumps(after)


def _evaluation_of(record: dg.EventLogRecord) -> dg.AssetCheckEvaluation:
    event = record.event_log_entry.dagster_event
    assert event is not None
    return event.asset_check_evaluation_data


def _has_failed(record: dg.EventLogRecord) -> bool:
    return not _evaluation_of(record).passed


def _of_many(instance: dg.DagsterInstance, records: Sequence[dg.EventLogRecord]) -> set[str]:
    """The runs of many partitions among those of `records`: their checks end with a result of all."""
    ids = sorted({record.run_id for record in records if _evaluation_of(record).partition is not None})
    runs = instance.get_runs(dg.RunsFilter(run_ids=ids)) if ids else []
    return {run.run_id for run in runs if len(set(_range_of(run.tags))) > 1}


def _is_stopped_by_check(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether nothing but a blocking check made the run fail: that check has an alarm of its own."""
    steps = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    errors = [event.step_failure_data.error for step in steps if (event := step.event_log_entry.dagster_event)]
    return bool(errors) and all(error and error.cls_name == "DagsterAssetCheckFailedError" for error in errors)


def _run_alarm(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,
    record: dg.EventLogRecord,
    dagster_url: str,
    secrets: Sequence[str],
) -> Alarm:
    run_id = record.run_id
    run = instance.get_run_by_id(run_id)
    steps = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    names = {record.event_log_entry.step_key for record in steps}
    chosen = sorted(run.asset_selection or ()) if run is not None else []
    chosen = chosen or sorted(graph.get_all_asset_keys())
    failed = [key for key in chosen if "__".join(key.path) in names]
    job = run.job_name if run is not None else "unknown"
    mend = what_to_do(failed[0] if failed else None)
    if run is not None and run.tags.get(WILL_RETRY_TAG) == "true":
        mend = f"Nothing yet: it is started again by itself. If that fails too, you are told. Then: {mend}"
    return Alarm(
        id=f"run {run_id}",
        kind="run",
        severity="ERROR",
        subject=", ".join(key.to_user_string() for key in failed) or f"job {job}",
        partition=partition_of(run.tags) if run is not None else None,
        owners=_owners(graph, failed or chosen),
        cause=redacted(run_cause(instance, run_id), secrets),
        what_to_do=mend,
        url=f"{dagster_url}/runs/{run_id}",
        raised_at=datetime.fromtimestamp(record.timestamp, UTC),
    )


def _check_alarm(graph: BaseAssetGraph, record: dg.EventLogRecord, dagster_url: str, secrets: Sequence[str]) -> Alarm:
    found = _evaluation_of(record)
    key = found.asset_check_key
    name = f"{key.asset_key.to_user_string()}:{key.name}"
    of_all = found.metadata.get(FAILED_CATEGORIES)
    many = [str(slug) for slug in of_all.value or ()] if isinstance(of_all, dg.JsonMetadataValue) else None
    described = graph.get(key).description if key in graph.asset_check_keys else None
    return Alarm(
        id=f"check {record.run_id} {name} {found.partition or ''}".strip(),
        kind="check",
        severity="ERROR" if found.severity == dg.AssetCheckSeverity.ERROR else "WARN",
        subject=name,
        partition=_named(many) if many else found.partition,
        owners=_owners(graph, [key.asset_key]),
        cause=redacted(found.description or facts(found.metadata), secrets),
        what_to_do=" ".join(filter(None, [described, what_to_do(key.asset_key, key.name)])),
        url=f"{dagster_url}/assets/{'/'.join(map(urllib.parse.quote, key.asset_key.path))}"
        f"?view=checks&checkDetail={urllib.parse.quote(key.name)}",
        raised_at=datetime.fromtimestamp(record.timestamp, UTC),
    )


def _named(categories: Sequence[str]) -> str:
    """The first few of them, and how many more."""
    rest = f" and {len(categories) - _NAMED} more" if len(categories) > _NAMED else ""
    return ", ".join(categories[:_NAMED]) + rest


def _owners(graph: BaseAssetGraph, keys: Sequence[dg.AssetKey]) -> tuple[str, ...]:
    known = graph.get_all_asset_keys()
    return tuple(sorted({owner for key in keys if key in known for owner in graph.get(key).owners}))


def partition_of(tags: Mapping[str, str]) -> str | None:
    """The partition of a run, or the range of them, for people."""
    first, last = _range_of(tags)
    return tags.get("dagster/partition") or (f"{first} .. {last}" if first != last else first)


def _range_of(tags: Mapping[str, str]) -> tuple[str | None, str | None]:
    return tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")


def failed_partitions_sensor() -> dg.SensorDefinition:
    """Keeps the standing list of `bookclub failures` on the page of each asset, as an observation."""

    @dg.sensor(
        name="failed_partitions",
        minimum_interval_seconds=120,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="When the list of what is failed and not yet mended changes, each asset that it concerns gets an "
        "observation with its part of the list. `bookclub failures` prints it whole.",
    )
    def failed_partitions(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None
        with BooksDatabase().begin() as connection:
            retired = partial(retired_slugs, connection)
            failures = standing_failures(context.instance, context.repository_def.asset_graph, retired)
        before = json.loads(context.cursor or "{}")
        by_asset = _by_asset(failures)
        marks = {name: [f"{row.what} {row.partition} {row.run_id}" for row in rows] for name, rows in by_asset.items()}
        changed = [name for name in sorted({*before, *marks}) if before.get(name) != marks.get(name)]
        if not changed:
            return dg.SensorResult(skip_reason=f"As before: {len(failures)} failed.", cursor=json.dumps(marks))
        events = [_observation(name, by_asset.get(name, [])) for name in changed]
        return dg.SensorResult(asset_events=events, cursor=json.dumps(marks))

    return failed_partitions


def _by_asset(failures: Sequence[Failure]) -> dict[str, list[Failure]]:
    found: dict[str, list[Failure]] = {}
    for failure in failures:
        found.setdefault(failure.what.split(":")[0], []).append(failure)
    return found


def _observation(asset: str, failures: Sequence[Failure]) -> dg.AssetObservation:
    records = [
        dg.TableRecord(
            {
                "what": row.what,
                "partition": row.partition or "",
                "failed_at": f"{row.failed_at:%Y-%m-%d %H:%M} UTC",
                "cause": redacted(row.cause),
                "run": row.run_id,
            }
        )
        for row in failures
    ]
    columns = [dg.TableColumn(name, "string") for name in ("what", "partition", "failed_at", "cause", "run")]
    return dg.AssetObservation(
        dg.AssetKey.from_user_string(asset),
        description=f"{len(failures)} failed and not mended since" if failures else "All that had failed is mended",
        metadata={
            "failed": len(failures),
            "failures": dg.MetadataValue.table(records, schema=dg.TableSchema(columns)),
        },
    )
