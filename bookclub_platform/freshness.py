"""Settings -> a freshness policy on every asset: Dagster shows what is late, whatever the reason.

An asset may be as old as the longest pause of the schedule that makes it, and some more: it warns at an eighth more of
it (27 hours for a daily crawl), and fails at a half more (36 hours), when one crawl was missed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg
from cronsim import CronSim

from bookclub_platform.core.settings import Settings

_WARN, _FAIL = 1.125, 1.5
_TICKS = 400  # of a daily schedule these are more than a year, with its night of 25 hours
_SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def with_freshness(assets: Iterable[dg.AssetsDefinition], settings: Settings) -> list[dg.AssetsDefinition]:
    """The same assets, each with the policy of the schedule that makes it."""

    def policed(spec: dg.AssetSpec) -> dg.AssetSpec:
        pause = longest_pause(_schedule_of(spec, settings), settings.timezone)
        # Whole minutes: of a window of half a second Dagster's UI shows an error in place of its overview.
        fail, warn = (timedelta(minutes=round(pause * part / timedelta(minutes=1))) for part in (_FAIL, _WARN))
        policy = dg.FreshnessPolicy.time_window(fail_window=fail, warn_window=warn)
        return spec.replace_attributes(freshness_policy=policy)

    return list(dg.map_asset_specs(policed, assets))


def _schedule_of(spec: dg.AssetSpec, settings: Settings) -> str:
    if spec.group_name == "models":
        return settings.retrain_schedule
    return settings.covers_schedule if spec.key.path[-1] == "covers" else settings.crawl_schedule


def longest_pause(cron: str, time_zone: str) -> timedelta:
    """The longest time between two neighbouring ticks."""
    ticks = itertools.islice(CronSim(cron, _SINCE.astimezone(ZoneInfo(time_zone))), _TICKS)
    # Instants, not wall clocks: a night in October has an hour more.
    return max(after - before for before, after in itertools.pairwise(tick.astimezone(UTC) for tick in ticks))
