"""When things run by themselves: the crawl every day, the model every week. All are on from the start; the hours and
their time zone are settings.

A tick that starts nothing says why: a run of the same is still in progress, or too little is new for a model.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from bookclub_platform.assets._common import CATEGORIES, categories, range_tags, stretches, whole_key
from bookclub_platform.core.categories import living_slugs, retired_slugs
from bookclub_platform.core.settings import Settings
from bookclub_platform.resources import BooksDatabase
from bookclub_platform.sources import Source

# Without NOT_STARTED: a launch that Postgres did not survive leaves such a run. Nobody ever starts it, and every night
# would be left out for it.
_IN_PROGRESS = [status for status in NOT_FINISHED_STATUSES if status != dg.DagsterRunStatus.NOT_STARTED]
BOOKS, MODEL = dg.AssetKey("books"), dg.AssetKey("tfidf_model")
_NAMED = 10  # of the categories that are missing

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


def source_runs(source: Source, keys: Sequence[str], database: BooksDatabase) -> list[dict[str, str]]:
    """The tags of the runs that do all living partitions of `source`: one run, and one more for each gap that a retired
    category leaves among `keys`, for Dagster runs neighbours together."""
    if not source.has_categories:
        return [range_tags([whole_key(source.name)])]
    with database.begin() as connection:
        retired = retired_slugs(connection, source.name)
    return [range_tags(stretch) for stretch in stretches(keys, retired)]


def daily_crawl_schedule(sources: Sequence[Source], settings: Settings) -> dg.ScheduleDefinition:
    """Every night: pages, rows and table."""
    return _daily("daily_crawl", settings.crawl_schedule, settings.timezone, crawl, sources, source_selection)


def daily_covers_schedule(sources: Sequence[Source], settings: Settings) -> dg.ScheduleDefinition:
    """Every morning: the covers, which no reader waits for."""

    def selection(source: Source) -> list[dg.AssetKey]:
        return [dg.AssetKey([source.name, "covers"])]

    return _daily("daily_covers", settings.covers_schedule, settings.timezone, covers, sources, selection)


def _daily(
    name: str,
    cron_schedule: str,
    time_zone: str,
    job: UnresolvedAssetJobDefinition,
    sources: Sequence[Source],
    selection: Callable[[Source], list[dg.AssetKey]],
) -> dg.ScheduleDefinition:
    """Runs for each source, so that none waits for another or fails with it."""

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron_schedule,
        execution_timezone=time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"A run for each source, with all its living categories. The hour is that of {time_zone}.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        keys = context.instance.get_dynamic_partitions(CATEGORIES)
        if not keys:
            yield dg.SkipReason("No category is known yet; the sensors <source>_categories find them.")
            return
        skipped = []
        for source in sources:
            busy = run_in_progress(context.instance, job.name, selection(source)[0])
            if busy is not None:
                skipped.append(f"{source.name}: {busy}")
                continue
            for at, tags in enumerate(source_runs(source, keys, BooksDatabase())):
                run_key = f"{source.name} {context.scheduled_execution_time.isoformat()} {at}"
                yield dg.RunRequest(run_key, tags=tags, asset_selection=selection(source))
        if len(skipped) == len(sources):
            yield dg.SkipReason("; ".join(skipped))
        for reason in skipped:
            context.log.warning(reason)

    return daily


def run_in_progress(instance: dg.DagsterInstance, job_name: str, asset: dg.AssetKey) -> str | None:
    """A sentence that names the run, of all or of many partitions, that makes `asset` now or will soon; None if there
    is none. A whole run of the job `job_name` makes it.

    One of a single partition, as a person starts it, is no reason to leave out a night: the pool makes it wait.
    """
    for record in instance.get_run_records(dg.RunsFilter(statuses=_IN_PROGRESS)):
        run = record.dagster_run
        is_of_it = asset in run.asset_selection if run.asset_selection else run.job_name == job_name
        if is_of_it and "dagster/partition" not in run.tags:
            return f"run {run.run_id} of job {run.job_name} is in progress ({run.status.value}, {_age(record)})"
    return None


def _age(record: dg.RunRecord) -> str:
    return f"since {record.create_timestamp:%Y-%m-%d %H:%M} UTC"


def weekly_retrain_schedule(sources: Sequence[Source], settings: Settings) -> dg.ScheduleDefinition:
    """Every week, if enough categories came in anew since the last model."""

    @dg.schedule(
        name="weekly_retrain",
        job=retrain,
        cron_schedule=settings.retrain_schedule,
        execution_timezone=settings.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"A new model, once {settings.retrain_coverage:.0%} of the categories came in anew since the last. "
        f"The hour is that of {settings.timezone}.",
    )
    def weekly_retrain(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = run_in_progress(context.instance, retrain.name, MODEL)
        if busy is not None:
            return dg.SkipReason(busy)
        wanted = living_keys(context.instance, sources, BooksDatabase())
        missing = too_little_new(context.instance, wanted, settings.retrain_coverage)
        return dg.SkipReason(missing) if missing else dg.RunRequest(context.scheduled_execution_time.isoformat())

    return weekly_retrain


def living_keys(instance: dg.DagsterInstance, sources: Sequence[Source], database: BooksDatabase) -> list[str]:
    """The partitions that at least one source still fills: not those of a source that was removed."""
    filled = {whole_key(source.name) for source in sources if not source.has_categories}
    with database.begin() as connection:
        for source in sources:
            filled |= living_slugs(connection, source.name) if source.has_categories else set()
    return [key for key in instance.get_dynamic_partitions(CATEGORIES) if key in filled]


def too_little_new(instance: dg.DagsterInstance, wanted: Sequence[str], least_share: float) -> str | None:
    """What is missing for a new model, in a sentence; None if at least `least_share` of the `wanted` partitions of
    `books` were materialised since the last one."""
    if not wanted:
        return "No category is known yet; the sensors <source>_categories find them."
    last = instance.get_latest_materialization_event(MODEL)
    trained_at = last.timestamp if last else 0.0
    storage = instance.event_log_storage
    filters = dg.AssetRecordsFilter(BOOKS, asset_partitions=list(wanted), after_timestamp=trained_at)
    fresh, cursor, has_more = set[str](), None, True
    while has_more:
        page = storage.fetch_materializations(filters, limit=1000, cursor=cursor)
        fresh |= {record.partition_key for record in page.records if record.partition_key}
        cursor, has_more = page.cursor, page.has_more
    if len(fresh) >= least_share * len(wanted):
        return None
    missing = [key for key in wanted if key not in fresh]
    rest = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
    since = f"the model of {datetime.fromtimestamp(trained_at, UTC):%Y-%m-%d %H:%M} UTC" if last else "the start"
    return (
        f"{len(fresh)} of {len(wanted)} categories came in anew since {since}, and {least_share:.0%} are needed "
        f"(BOOKCLUB_RETRAIN_COVERAGE). Missing: {', '.join(missing[:_NAMED])}{rest}. Materialise them with the job "
        "crawl, or start the job retrain by hand."
    )
