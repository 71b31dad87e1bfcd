"""When things run by themselves: the crawl every day, the model every week. Both are on from the start."""

import dagster as dg

from bookclub_platform.assets._common import CATEGORIES, categories, range_tags

crawl = dg.define_asset_job(
    "crawl",
    dg.AssetSelection.all() - dg.AssetSelection.groups("models"),
    description="Every shop's pages, cleaned, into the table, for the chosen categories.",
    partitions_def=categories,
)
retrain = dg.define_asset_job(
    "retrain", dg.AssetSelection.groups("models"), description="Fit, check and publish the model on the table as it is."
)


@dg.schedule(job=crawl, cron_schedule="0 3 * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def daily_crawl(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """All categories in one run, every night at three, UTC."""
    keys = context.instance.get_dynamic_partitions(CATEGORIES)
    if not keys:
        return dg.SkipReason("No category is known yet; the sensor new_categories finds them.")
    return dg.RunRequest(tags=range_tags(keys))


weekly_retrain = dg.ScheduleDefinition(
    name="weekly_retrain",
    job=retrain,
    cron_schedule="0 5 * * 1",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Every Monday at five, UTC, after the night's crawl.",
)
