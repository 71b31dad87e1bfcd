"""When things run by themselves: the crawl every day, the model every week. Both are on from the start."""

from collections.abc import Callable, Iterator, Sequence

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from bookclub_platform.assets._common import CATEGORIES, categories, range_tags, whole_key
from bookclub_platform.sources import Source

_report = dg.AssetSelection.assets("catalogue_report")
_tables = (
    dg.AssetSelection.all()
    - dg.AssetSelection.groups("models")
    - dg.AssetSelection.key_substring("/covers")
    - _report  # has no partitions, and one job has one kind of them
)

crawl = dg.define_asset_job(
    "crawl",
    _tables,
    description="Pages, rows and table of every source, for the chosen categories.",
    partitions_def=categories,
)
clean = dg.define_asset_job(
    "clean",
    _tables - dg.AssetSelection.key_substring("/raw_pages"),
    description="Rows and table anew from the pages that are kept, without asking any shop: after a mended parser.",
    partitions_def=categories,
)
covers = dg.define_asset_job(
    "covers",
    dg.AssetSelection.key_substring("/covers"),
    description="The cover images of the rows, as far as they are not there yet.",
    partitions_def=categories,
)
report = dg.define_asset_job("report", _report, description="The catalogue report, from the table as it is.")
retrain = dg.define_asset_job(
    "retrain", dg.AssetSelection.groups("models"), description="Fit, check and publish the model on the table as it is."
)


def source_selection(source: Source) -> list[dg.AssetKey]:
    """What a run for one source alone materialises: its own assets and the table."""
    return [dg.AssetKey([source.name, "raw_pages"]), dg.AssetKey([source.name, "cleaned_books"]), dg.AssetKey("books")]


def source_tags(source: Source, keys: Sequence[str]) -> dict[str, str]:
    """The tags of such a run, over all partitions `keys`, or over the one that stands for the whole source."""
    return range_tags(keys if source.has_categories else [whole_key(source.name)])


def daily_crawl_schedule(sources: Sequence[Source]) -> dg.ScheduleDefinition:
    """Every night at three: pages, rows and table."""
    return _daily("daily_crawl", "0 3 * * *", crawl, sources, source_selection)


def daily_covers_schedule(sources: Sequence[Source]) -> dg.ScheduleDefinition:
    """Every night at six: the covers, which no reader waits for."""
    return _daily("daily_covers", "0 6 * * *", covers, sources, lambda source: [dg.AssetKey([source.name, "covers"])])


def _daily(
    name: str,
    cron_schedule: str,
    job: UnresolvedAssetJobDefinition,
    sources: Sequence[Source],
    selection: Callable[[Source], list[dg.AssetKey]],
) -> dg.ScheduleDefinition:
    """A run for each source, all its categories in one, so that none waits for another or fails with it."""

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A run for each source, with all its categories. The hour is UTC.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        keys = context.instance.get_dynamic_partitions(CATEGORIES)
        if not keys:
            yield dg.SkipReason("No category is known yet; the sensor new_categories finds them.")
            return
        for source in sources:
            run_key = f"{source.name} {context.scheduled_execution_time.isoformat()}"
            yield dg.RunRequest(run_key, tags=source_tags(source, keys), asset_selection=selection(source))

    return daily


weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=retrain,
    cron_schedule="0 5 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday at five, UTC, after the night's crawl.",
)
