"""What is noticed by itself: categories that a shop has and we do not know yet."""

from collections.abc import Sequence

import dagster as dg

from bookclub_platform.assets._common import CATEGORIES, categories
from bookclub_platform.resources import ShopFetcher
from bookclub_platform.sources import Source


def new_categories_sensor(sources: Sequence[Source]) -> dg.SensorDefinition:
    """Adds a partition for each category that any of `sources` lists and we do not have."""

    @dg.sensor(
        name="new_categories",
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks each shop for its categories, every hour, and adds a partition for each new one.",
    )
    def new_categories(context: dg.SensorEvaluationContext, shop: ShopFetcher) -> dg.SensorResult:
        found = discover(context.instance, sources, shop)
        if not found:
            return dg.SensorResult(skip_reason=dg.SkipReason("No shop has a category that we do not know."))
        return dg.SensorResult(dynamic_partitions_requests=[categories.build_add_request(found)])

    return new_categories


def discover(instance: dg.DagsterInstance, sources: Sequence[Source], shop: ShopFetcher) -> list[str]:
    """The slugs of the categories that the shops list and `instance` does not know, in the shops' order."""
    known = set(instance.get_dynamic_partitions(CATEGORIES))
    with shop.open() as fetcher:
        listed = [category.slug for source in sources for category in source.categories(fetcher)]
    return [slug for slug in dict.fromkeys(listed) if slug not in known]
