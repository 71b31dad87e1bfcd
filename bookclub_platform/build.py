"""`bookclub build` and `bookclub clean`: everything materialised once in this process, with progress on the way.

build: shop -> kept pages -> rows -> table -> model          clean: kept pages -> rows -> table
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from bookclub_platform.assets._common import CATEGORIES, range_tags, whole_key
from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import Settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.local.home import dagster_home, mark_built
from bookclub_platform.schedules import source_selection, source_tags
from bookclub_platform.sensors import discover
from bookclub_platform.sources import Source, latest, sources

STAGES = 4  # of each category: crawl, clean, load, covers
# The terminal is for the progress bar; Dagster keeps every event in its storage.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ProgressOver = Callable[[int], AbstractContextManager[Progress]]


class BuildFailed(BookclubError):
    """A run ended in failure; all its events are in Dagster's storage."""


def build(settings: Settings, progress_over: ProgressOver) -> None:
    """Find the categories, then run the job `crawl` for each source, all categories in one run, `retrain`, `covers`.

    `progress_over(n)` gives the one to tell about the `n` steps to come.

    Raises:
        BuildFailed: the text has the cause for each run that failed. A source that fails holds no other back: where
            there is a model all the same, the home counts as built.
    """
    found = sources(settings)
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        discovery = discover(found)
        instance.add_dynamic_partitions(CATEGORIES, discovery.unknown_to(instance))
        faults = list(discovery.failures.values())
        well = [source for source in found if source.name in discovery.keys]
        if not well:
            raise BuildFailed(" ".join(faults))
        keys = list(instance.get_dynamic_partitions(CATEGORIES))
        steps = sum(len(discovery.keys[source.name]) for source in well) * STAGES + 1
        with progress_over(steps) as progress:
            definitions = build_definitions(settings, progress)
            crawl = definitions.resolve_job_def("crawl")
            for source in well:
                faults += _run(crawl, instance, source_tags(source, keys), source_selection(source))
            untrained = _run(definitions.resolve_job_def("retrain"), instance, {})
            covers = definitions.resolve_job_def("covers")
            for source in well:
                faults += _run(covers, instance, source_tags(source, keys), [dg.AssetKey([source.name, "covers"])])
    if not untrained:
        mark_built(settings.home)
    if faults or untrained:
        raise BuildFailed(" ".join([*faults, *untrained]))


def clean(settings: Settings, chosen: Sequence[str], progress_over: ProgressOver) -> None:
    """Clean the kept pages of the `chosen` categories (all: none named) again and load the rows; asks no shop.

    Raises:
        BuildFailed: a run failed, or no pages are kept of a chosen category.
    """
    found = sources(settings)
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        known = list(instance.get_dynamic_partitions(CATEGORIES))
        if missing := [key for key in chosen if key not in known]:
            raise BuildFailed(f"No pages are kept of {', '.join(missing)}. Known categories: {', '.join(known)}.")
        faults: list[str] = []
        with progress_over(2 * len(chosen or known)) as progress:
            job = build_definitions(settings, progress).resolve_job_def("clean")
            for source in found:
                for tags in _tags_of(source, chosen, known, settings):
                    faults += _run(job, instance, tags, source_selection(source)[1:])
    if faults:
        raise BuildFailed(" ".join(faults))


def _tags_of(source: Source, chosen: Sequence[str], known: Sequence[str], settings: Settings) -> list[dict[str, str]]:
    """The tags of the runs that clean what is kept of one source: one for all, or one for each chosen category."""
    kept = [
        key
        for key in (known if source.has_categories else [whole_key(source.name)])
        if latest(settings.home / "raw", source.name, key) is not None
    ]
    if not kept:
        return []
    if not chosen:
        return [source_tags(source, known)]
    return [range_tags([key]) for key in kept if key in chosen]


def _run(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str],
    selection: Sequence[dg.AssetKey] | None = None,
) -> list[str]:
    """Run the job, or the selected assets of it, and return the causes of its failure: none if it went well."""
    result = job.execute_in_process(
        run_config=_QUIET, instance=instance, tags=dict(tags), asset_selection=selection, raise_on_error=False
    )
    if result.success:
        return []
    causes = [_root(event.step_failure_data.error) for event in result.all_node_events if event.is_step_failure]
    return [f"Run {result.run_id} of job {job.name} failed: {' '.join(causes) or 'see its events'}"]


def _root(error: SerializableErrorInfo | None) -> str:
    """What went wrong at first, without the frames that it was raised through."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no error was kept"
