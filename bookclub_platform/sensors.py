"""What is noticed by itself: categories that a source has and we do not know yet, and those that it has no more; and
events of readers that are too old.

Each source has a sensor of its own: one that hangs or fails holds no other back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from bookclub_platform.assets._common import CATEGORIES, categories, whole_key
from bookclub_platform.core.accounts import forget_sessions
from bookclub_platform.core.book import Category
from bookclub_platform.core.categories import Changes, note_listing
from bookclub_platform.core.errors import ConfigurationError, SourceError
from bookclub_platform.core.feedback import forget_events
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.local.home import check_shop, note_shop
from bookclub_platform.resources import BooksDatabase
from bookclub_platform.sources import Source


@dataclass(frozen=True, slots=True)
class Discovery:
    """What the sources say of their categories.

    Attributes:
        listed: source -> its categories; a source that could not be asked is missing.
        failures: source -> why it could not be asked.
    """

    listed: Mapping[str, Sequence[Category]]
    failures: Mapping[str, str]

    @property
    def keys(self) -> Mapping[str, list[str]]:
        """Source -> its partition keys."""
        return {name: [category.slug for category in listed] for name, listed in self.listed.items()}

    def unknown_to(self, instance: dg.DagsterInstance) -> list[str]:
        """The keys that have no partition yet, in the order in which the sources list them."""
        known = set(instance.get_dynamic_partitions(CATEGORIES))
        return [key for key in dict.fromkeys(key for keys in self.keys.values() for key in keys) if key not in known]


def discover(sources: Sequence[Source]) -> Discovery:
    """Ask each source for its categories; one that fails holds no other back."""
    listed, failures = {}, {}
    for source in sources:
        try:
            listed[source.name] = _listed(source)
        except (SourceError, ConfigurationError) as error:
            failures[source.name] = str(error)
    return Discovery(listed, failures)


def _listed(source: Source) -> Sequence[Category]:
    if not source.has_categories:
        return [Category(whole_key(source.name), source.name, source.address)]
    settings = load_settings()
    check_shop(settings, source.address)
    with source.fetcher() as fetcher:
        listed = source.categories(fetcher)
    note_shop(settings, source.address)
    return listed


def note(source: Source, listed: Sequence[Category], database: BooksDatabase) -> Changes:
    """Note what `source` listed just now, and retire or restore what it is time for; see core/categories.py."""
    if not source.has_categories:
        return Changes()
    with database.begin() as connection:
        return note_listing(connection, source.name, listed, datetime.now(UTC))


def categories_sensor(source: Source) -> dg.SensorDefinition:
    """Adds a partition for each category that `source` lists and we do not have, and retires those that are gone."""

    @dg.sensor(
        name=f"{source.name}_categories",
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Asks {source.address} for its categories, every hour: a new one gets a partition, one that is "
        "gone for a day is retired, and one that is back is restored.",
    )
    def source_categories(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        discovery = discover([source])
        if discovery.failures:
            raise dg.Failure(f"{source.name} could not be asked: {discovery.failures[source.name]}")
        changes = note(source, discovery.listed[source.name], BooksDatabase())
        for sentence in _sentences(source, changes):
            context.log.warning(sentence)
        found = discovery.unknown_to(context.instance)
        if not found:
            what = "; ".join(_sentences(source, changes)) or f"{source.name} lists what we know."
            return dg.SensorResult(skip_reason=dg.SkipReason(what))
        return dg.SensorResult(dynamic_partitions_requests=[categories.build_add_request(found)])

    return source_categories


def _sentences(source: Source, changes: Changes) -> list[str]:
    sentences = [f"{source.name}/{key} is listed again: restored." for key in changes.restored]
    sentences += [f"{source.name}/{key} is gone: retired with {n} books." for key, n in changes.retired.items()]
    if changes.absent:
        reason = "so much at once that the listing is not believed" if changes.is_doubted else "not for long enough yet"
        sentences.append(f"{source.name} does not list {', '.join(changes.absent)}: {reason}.")
    return sentences


def retention_sensor(settings: Settings) -> dg.SensorDefinition:
    """Forgets what readers did so long ago that it says nothing of today's models, and sessions that are over."""
    days = settings.feedback_days

    @dg.sensor(
        name="retention",
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Every hour deletes events of readers older than {days} days, and sessions that are over.",
    )
    def retention() -> dg.SkipReason:
        with BooksDatabase().begin() as connection:
            forgotten = forget_events(connection, timedelta(days=days))
            over = forget_sessions(connection)
        return dg.SkipReason(f"{forgotten} events were older than {days} days, {over} sessions were over.")

    return retention


report_after_load = dg.AutomationConditionSensorDefinition(
    "report_after_load",
    target=dg.AssetSelection.assets("catalogue_report"),
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Makes the catalogue report anew once a load of the table books is through.",
)
