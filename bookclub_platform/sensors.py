"""What is noticed by itself: categories that a source has and we do not know yet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from bookclub_platform.assets._common import CATEGORIES, categories, whole_key
from bookclub_platform.core.errors import SourceError
from bookclub_platform.sources import Source


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the sources say of their categories.

    Attributes:
        keys: source -> its partition keys; a source that could not be asked is missing.
        failures: source -> why it could not be asked.
    """

    keys: Mapping[str, list[str]]
    failures: Mapping[str, str]

    def unknown_to(self, instance: dg.DagsterInstance) -> list[str]:
        """The keys that have no partition yet, in the order in which the sources list them."""
        known = set(instance.get_dynamic_partitions(CATEGORIES))
        return [key for key in dict.fromkeys(key for keys in self.keys.values() for key in keys) if key not in known]


def discover(sources: Sequence[Source]) -> Discovery:
    """Ask each source for its categories; one that fails holds no other back."""
    keys, failures = {}, {}
    for source in sources:
        try:
            keys[source.name] = _keys(source)
        except SourceError as error:
            failures[source.name] = str(error)
    return Discovery(keys, failures)


def _keys(source: Source) -> list[str]:
    if not source.has_categories:
        return [whole_key(source.name)]
    with source.fetcher() as fetcher:
        return [category.slug for category in source.categories(fetcher)]


def new_categories_sensor(sources: Sequence[Source]) -> dg.SensorDefinition:
    """Adds a partition for each category that any of `sources` lists and we do not have."""

    @dg.sensor(
        name="new_categories",
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks each source for its categories, every hour, and adds a partition for each new one.",
    )
    def new_categories(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        discovery = discover(sources)
        for failure in discovery.failures.values():
            context.log.error(failure)
        if discovery.failures and not discovery.keys:
            raise dg.Failure(f"No source could be asked: {'; '.join(discovery.failures.values())}")
        found = discovery.unknown_to(context.instance)
        if not found:
            return dg.SensorResult(skip_reason=dg.SkipReason("No source has a category that we do not know."))
        return dg.SensorResult(dynamic_partitions_requests=[categories.build_add_request(found)])

    return new_categories


report_after_load = dg.AutomationConditionSensorDefinition(
    "report_after_load",
    target=dg.AssetSelection.assets("catalogue_report"),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the catalogue report anew once a load of the table books is through.",
)
