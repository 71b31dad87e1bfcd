"""Faults of each category -> asset checks, each with a result for every partition of the run.

A run of many categories continues when one of them fails a blocking check: the asset itself passes nothing of that
category on, and the others continue. If all of them fail, as in a run of one category, Dagster stops the run before the
downstream assets. See docs/decisions/0005-row-rules.md.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationTargetMaterializationData

from bookclub_platform.assets._common import categories

FAILED_CATEGORIES = "failed_categories"  # only in the metadata of the result for all categories of a run
Events = Iterator[dg.MaterializeResult | dg.AssetCheckEvaluation | dg.Output]


@dataclass(frozen=True, slots=True)
class Check:
    """One check of each category."""

    name: str
    description: str
    is_blocking: bool = False
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR

    def spec(self, asset: Sequence[str], is_partitioned: bool = True) -> dg.AssetCheckSpec:
        with warnings.catch_warnings():
            # A preview feature in 1.13 that the UI supports. It lacks a result per partition of a run: see `Findings`.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            return dg.AssetCheckSpec(
                self.name,
                asset=dg.AssetKey(asset),
                description=self.description,
                blocking=self.is_blocking,
                partitions_def=categories if is_partitioned else None,
            )


@dataclass(frozen=True, slots=True)
class _Finding:
    fault: str | None
    facts: dict[str, Any]


class Findings:
    """The results of `checks` for one asset, recorded category by category."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._noted: dict[Check, dict[str, _Finding]] = {check: {} for check in checks}

    def note(self, check: Check, key: str, fault: str | None, **facts: Any) -> None:
        """`fault` is a sentence for people; None: the category passed."""
        self._noted[check][key] = _Finding(fault, facts)

    def fault(self, check: Check, key: str) -> str | None:
        """The recorded fault; None if the category passed, or was not checked."""
        finding = self._noted[check].get(key)
        return finding.fault if finding else None

    def blocks(self, key: str) -> bool:
        """Whether nothing of this category may be passed on."""
        return any(check.is_blocking and self.fault(check, key) for check in self._noted)

    def events(self, context: dg.AssetExecutionContext, metadata: dict[str, Any] | None = None) -> Events:
        """The materialisation, then each check's result for each partition. For `yield from` at the end of an asset."""
        yield dg.MaterializeResult(metadata=metadata)
        keys: list[str | None] = [*context.partition_keys] if context.assets_def.partitions_def else [None]
        targets = _materialized(context, keys)
        for spec in context.assets_def.check_specs:
            if spec.key not in context.selected_asset_check_keys:
                continue
            (check,) = (check for check in self._noted if check.name == spec.name)
            noted = self._noted[check]
            is_whole = bool(noted) and all(finding.fault for finding in noted.values())
            for key in keys:
                yield _evaluation(spec, check, key, self._of(check, key), is_whole, targets.get(key))
            if len(keys) > 1:
                # An asset's overview shows the newest result of any partition, so the last one covers all partitions.
                yield _evaluation(spec, check, None, self._of_all(check), is_whole, None)
            yield dg.Output(None, output_name=spec.get_python_identifier())

    def _of_all(self, check: Check) -> _Finding:
        noted = self._noted[check]
        failed = {key: finding.fault for key, finding in noted.items() if finding.fault}
        text = "; ".join(f"{key}: {fault}" for key, fault in failed.items())
        return _Finding(text or None, {"categories": len(noted), "failed": len(failed), FAILED_CATEGORIES: [*failed]})

    def _of(self, check: Check, key: str | None) -> _Finding:
        noted = self._noted[check]
        found = next(iter(noted.values()), None) if key is None else noted.get(key)
        return found or _Finding(None, {"note": "nothing to check: there are no rows of this category"})


def _evaluation(
    spec: dg.AssetCheckSpec,
    check: Check,
    key: str | None,
    finding: _Finding,
    is_whole: bool,
    target: AssetCheckEvaluationTargetMaterializationData | None,
) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=spec.asset_key,
        check_name=spec.name,
        passed=finding.fault is None,
        severity=check.severity,
        # The log of a run shows this line and not the partition.
        description=finding.fault if key is None or finding.fault is None else f"{key}: {finding.fault}",
        metadata=({} if key is None else {"category": key}) | finding.facts,
        blocking=check.is_blocking and is_whole,
        partition=key,
        target_materialization_data=target,
    )


def _materialized(
    context: dg.AssetExecutionContext, keys: Sequence[str | None]
) -> dict[str | None, AssetCheckEvaluationTargetMaterializationData]:
    """Partition -> its materialisation in this run; without it the UI attributes a result to an older one."""
    partitions = [key for key in keys if key is not None]
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(context.asset_key, asset_partitions=partitions or None), limit=len(keys)
    ).records
    return {
        record.partition_key: AssetCheckEvaluationTargetMaterializationData(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        for record in records
    }
