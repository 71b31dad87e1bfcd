"""Dagster's storage -> what failed and has not been mended since: `bookclub failures`, and the observations in the UI.

A partition counts as failed from the run that failed on it to the next that materialises it, as in Dagster's own
pages; here it comes with the cause, for all assets at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster_shared.error import SerializableErrorInfo

from bookclub_platform.assets._checks import FAILED_CATEGORIES
from bookclub_platform.assets._common import CATEGORIES
from bookclub_platform.core.alarms import redacted

_WHAT_TO_DO = {
    "raw_pages": "See whether the shop answers (`bookclub doctor`), then materialise the partition again: pages that "
    "came are kept and not asked for twice.",
    "cleaned_books": "Look at `rejected_pages` in the metadata. Once the parser is mended, `bookclub clean` reads the "
    "kept pages again without asking the shop.",
    "covers": "Materialise the partition again: covers that came are kept. No reader waits for them.",
    "books": "The table is as it was before. See whether Postgres answers (`bookclub doctor`), then materialise again.",
    "tfidf_model": "The champion before serves on. Mend the cause, then start the job retrain.",
}
_WHAT_TO_DO_OF_CHECK = {
    "all_pages_came": _WHAT_TO_DO["raw_pages"],
    "pages_readable": "Crawl the category again: the damaged file is not needed once there is a newer one.",
    "count_did_not_collapse": "See whether the shop is whole, then crawl the category again. If its books are gone for "
    "good, materialise the partition of `books` with least_share: 0.",
    "price_drift": "The rows are loaded. Compare some prices with the shop's pages: if they are right, there is "
    "nothing to do, and the next crawl passes; else mend the parser and run `bookclub clean`.",
    "rating_drift": "The rows are loaded. Compare some stars with the shop's pages: if they are right, there is "
    "nothing to do, and the next crawl passes; else mend the parser and run `bookclub clean`.",
}
_OTHERWISE = "Open the run, mend the cause, and start it again from the failure."


@dataclass(frozen=True, slots=True)
class Failure:
    """What is failed now.

    Attributes:
        what: the asset (`books`) or the check (`books:rows_fit`).
        partition: None for an asset without partitions, or a check of the whole asset.
        cause: a sentence.
    """

    what: str
    partition: str | None
    run_id: str
    failed_at: datetime
    cause: str

    @property
    def source(self) -> str | None:
        """The source whose asset it is; None for one over all sources."""
        asset = dg.AssetKey.from_user_string(self.what.partition(":")[0])
        return asset.path[0] if len(asset.path) > 1 else None


def what_to_do(asset: dg.AssetKey | None, check: str | None = None) -> str:
    """What mends a failure of this asset, or of a `check` of it, for most causes."""
    if check in _WHAT_TO_DO_OF_CHECK:
        return _WHAT_TO_DO_OF_CHECK[check]
    return _WHAT_TO_DO.get(asset.path[-1], _OTHERWISE) if asset is not None else _OTHERWISE


def cause_of(error: SerializableErrorInfo | None) -> str:
    """The sentence of the dg.Failure that we raised, else what went wrong at first, without frames."""
    text = "no error was kept"
    while error is not None:
        text = error.message.strip()
        if error.cls_name == "Failure":
            break
        error = error.cause
    return text


def report(failures: Sequence[Failure], dagster_url: str) -> Iterator[str]:
    """The failures in lines: one entry for all partitions that one run failed on, with cause, mend and link."""
    for (what, run_id), rows in groupby(failures, key=lambda row: (row.what, row.run_id)):
        first, *more = rows
        asset, _, check = what.partition(":")
        partitions = [row.partition for row in (first, *more) if row.partition]
        place = f"{what} [{', '.join(partitions)}]" if partitions else what
        yield f"{place}  failed {first.failed_at:%Y-%m-%d %H:%M} UTC"
        yield f"    cause: {redacted(first.cause)}"
        yield f"    mend:  {what_to_do(dg.AssetKey.from_user_string(asset), check or None)}"
        yield f"    run:   {dagster_url}/runs/{run_id}"


def standing_failures(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,
    retired: Callable[[str | None], Collection[str]] = lambda _: (),
) -> list[Failure]:
    """Every asset, partition and check whose newest attempt failed, in the order of their names.

    Args:
        retired: the retired categories of a source, or of all sources (None), which nothing can mend or needs to.
    """
    assets = sorted(graph.get_all_asset_keys())
    attempts = [attempt for key in assets for attempt in _attempts(instance, graph, key)]
    failed = _failed_runs(instance, {run_id for *_, run_id in attempts})
    found = [
        Failure(key.to_user_string(), partition, run_id, failed[run_id][0], failed[run_id][1])
        for key, partition, run_id in attempts
        if run_id in failed
    ]
    checks = _failed_checks(instance, sorted(graph.asset_check_keys))
    found += sorted(checks, key=lambda row: (row.what, row.run_id, row.partition or ""))
    return [row for row in found if row.partition is None or row.partition not in retired(row.source)]


def _attempts(
    instance: dg.DagsterInstance, graph: BaseAssetGraph, key: dg.AssetKey
) -> Iterator[tuple[dg.AssetKey, str | None, str]]:
    """(asset, partition, run) for each partition whose newest attempt brought no materialisation, yet or at all."""
    storage = instance.event_log_storage
    if graph.get(key).is_partitioned:
        known = set(instance.get_dynamic_partitions(CATEGORIES))
        rows = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        yield from ((key, partition, run_id) for partition, (run_id, _) in sorted(rows.items()) if partition in known)
        return
    planned = storage.get_latest_planned_materialization_info(key)
    made = instance.get_latest_materialization_event(key)
    if planned is not None and (made is None or made.run_id != planned.run_id):
        yield key, None, planned.run_id


def _failed_runs(instance: dg.DagsterInstance, run_ids: Iterable[str]) -> Mapping[str, tuple[datetime, str]]:
    """Run -> when it failed and why, of those that did."""
    ids = sorted(run_ids)
    if not ids:
        return {}
    filters = dg.RunsFilter(run_ids=ids, statuses=[dg.DagsterRunStatus.FAILURE])
    return {
        record.dagster_run.run_id: (
            datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC),
            run_cause(instance, record.dagster_run.run_id),
        )
        for record in instance.get_run_records(filters)
    }


def run_cause(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why the run failed: the causes of its steps, else what Dagster says of the run."""
    steps = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    causes = [
        cause_of(event.step_failure_data.error) for record in steps if (event := record.event_log_entry.dagster_event)
    ]
    if causes:
        return " ".join(dict.fromkeys(causes))
    ends = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
    return next((record.event_log_entry.user_message for record in ends), "no event says why")


def _failed_checks(instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]) -> Iterator[Failure]:
    storage = instance.event_log_storage
    for info in storage.get_asset_check_partition_info(keys):
        if info.latest_execution_status != AssetCheckExecutionRecordStatus.FAILED:
            continue
        (record,) = storage.get_asset_check_execution_history(
            info.check_key,
            limit=1,
            status={AssetCheckExecutionRecordStatus.FAILED},
            partition_filter=PartitionKeyFilter(key=info.partition_key),
        )
        evaluation = record.evaluation
        if evaluation is not None and FAILED_CATEGORIES in evaluation.metadata:
            continue  # of all categories of a run: it would stay red until the next, whatever was mended one by one
        yield Failure(
            what=f"{info.check_key.asset_key.to_user_string()}:{info.check_key.name}",
            partition=info.partition_key,
            run_id=record.run_id,
            failed_at=datetime.fromtimestamp(record.create_timestamp, UTC),
            cause=(evaluation.description or facts(evaluation.metadata)) if evaluation else "no event says why",
        )


def facts(metadata: Mapping[str, dg.MetadataValue]) -> str:
    """What a check found, in a line; what has no short form (a plot, a table) is left out."""
    shown = [
        f"{name}: {value.value}"
        for name, value in metadata.items()
        if isinstance(
            value,
            (
                dg.TextMetadataValue,
                dg.IntMetadataValue,
                dg.FloatMetadataValue,
                dg.BoolMetadataValue,
                dg.JsonMetadataValue,
            ),
        )
    ]
    return "; ".join(shown) or "see the check"
