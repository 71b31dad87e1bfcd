"""`bookclub build` and `bookclub clean`: everything materialised once in this process, with progress on the way.

build: shop -> kept pages -> rows -> table -> model          clean: kept pages -> rows -> table
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import dagster as dg

from bookclub_platform.assets._common import CATEGORIES, range_tags, whole_key
from bookclub_platform.core.errors import AlreadyRunning, BookclubError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import Settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.failures import cause_of
from bookclub_platform.local.home import dagster_home, mark_built
from bookclub_platform.lost_runs import end_lost_runs, tags_of_this_process
from bookclub_platform.resources import BooksDatabase
from bookclub_platform.schedules import source_runs, source_selection
from bookclub_platform.sensors import discover, note
from bookclub_platform.sources import Source, has_pages, sources

STAGES = 4  # of each category: crawl, clean, load, covers
WHOLE = 2  # of the table: report, model
# The terminal is for the progress bar; Dagster keeps every event in its storage.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
ProgressOver = Callable[[int], AbstractContextManager[Progress]]


class BuildFailed(BookclubError):
    """A run ended in failure; all its events are in Dagster's storage."""


@dataclass
class Outcome:
    """What came of the runs so far, in sentences.

    Attributes:
        faults: runs that failed, with the first cause.
        warnings: checks that did not pass.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def checked(self) -> list[str]:
        """The warnings. Raises BuildFailed if there are faults."""
        if self.faults:
            raise BuildFailed("\n".join([*self.faults, *self.warnings]))
        return self.warnings


def build(settings: Settings, progress_over: ProgressOver) -> list[str]:
    """Find the categories, then run the job `crawl` for each source, all categories in one run, `report`, `retrain`,
    `covers`.

    `progress_over(n)` gives the one to tell about the `n` steps to come. Returns a sentence for each check that did not
    pass.

    Raises:
        AlreadyRunning: a run of Dagster asks a shop now.
        BuildFailed: the text has the cause for each run that failed. A source that fails holds no other back: where
            there is a model all the same, the home counts as built.
    """
    found = sources(settings)
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        _refuse_beside_a_crawl(instance, found)
        discovery = discover(found)
        instance.add_dynamic_partitions(CATEGORIES, discovery.unknown_to(instance))
        outcome = Outcome(faults=list(discovery.failures.values()))
        well = [source for source in found if source.name in discovery.keys]
        for source in well:
            note(source, discovery.listed[source.name], BooksDatabase())
        if not well:
            outcome.checked()
        keys = list(instance.get_dynamic_partitions(CATEGORIES))
        steps = sum(len(discovery.keys[source.name]) for source in well) * STAGES + WHOLE
        with progress_over(steps) as progress:
            definitions = build_definitions(settings, progress)
            crawl = definitions.resolve_job_def("crawl")
            for source in well:
                for tags in source_runs(source, keys, BooksDatabase()):
                    _run(outcome, crawl, instance, tags, source_selection(source))
            _run(outcome, definitions.resolve_job_def("report"), instance, {})
            is_trained = _run(outcome, definitions.resolve_job_def("retrain"), instance, {})
            covers = definitions.resolve_job_def("covers")
            for source in well:
                for tags in source_runs(source, keys, BooksDatabase()):
                    _run(outcome, covers, instance, tags, [dg.AssetKey([source.name, "covers"])])
    if is_trained:
        mark_built(settings.home)
    return outcome.checked()


def _refuse_beside_a_crawl(instance: dg.DagsterInstance, sources: Sequence[Source]) -> None:
    """Runs in this process do not wait in the pool of a shop: two at once would halve the delay between requests."""
    end_lost_runs(instance, grace_s=0)  # a killed build, started again at once, must not wait for itself
    asking = {dg.AssetKey([source.name, asset]) for source in sources for asset in ("raw_pages", "covers")}
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if asking & run.asset_selection if run.asset_selection else run.job_name in ("crawl", "covers"):
            raise AlreadyRunning(
                f"Run {run.run_id} of job {run.job_name} asks the shop now, and two at once would be twice as fast as "
                "the shop allows. Wait until it ends, or terminate it in Dagster."
            )


def clean(settings: Settings, chosen: Sequence[str], progress_over: ProgressOver) -> list[str]:
    """Clean the kept pages of the `chosen` categories (all: none named) again and load the rows; asks no shop. Returns
    a sentence for each check that did not pass.

    Raises:
        BuildFailed: a run failed, or no pages are kept of a chosen category.
    """
    found = sources(settings)
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        known = list(instance.get_dynamic_partitions(CATEGORIES))
        if missing := [key for key in chosen if key not in known]:
            raise BuildFailed(f"No pages are kept of {', '.join(missing)}. Known categories: {', '.join(known)}.")
        outcome = Outcome()
        with progress_over(2 * len(chosen or known)) as progress:
            job = build_definitions(settings, progress).resolve_job_def("clean")
            for source in found:
                for tags in _tags_of(source, chosen, known, settings):
                    _run(outcome, job, instance, tags, source_selection(source)[1:])
    return outcome.checked()


def _tags_of(source: Source, chosen: Sequence[str], known: Sequence[str], settings: Settings) -> list[dict[str, str]]:
    """The tags of the runs that clean what is kept of one source: one for all, or one for each chosen category."""
    kept = [
        key
        for key in (known if source.has_categories else [whole_key(source.name)])
        if has_pages(settings.home / "raw", source.name, key)
    ]
    if not kept:
        return []
    if not chosen:
        return source_runs(source, known, BooksDatabase())
    return [range_tags([key]) for key in kept if key in chosen]


def _run(
    outcome: Outcome,
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    tags: Mapping[str, str],
    selection: Sequence[dg.AssetKey] | None = None,
) -> bool:
    """Run the job, or the selected assets of it, note what came of it, and return whether it went well."""
    result = job.execute_in_process(
        run_config=_QUIET,
        instance=instance,
        tags=dict(tags) | tags_of_this_process(),
        asset_selection=selection,
        raise_on_error=False,
    )
    outcome.warnings += _unpassed(result.get_asset_check_evaluations())
    if not result.success:
        causes = [cause_of(event.step_failure_data.error) for event in result.all_node_events if event.is_step_failure]
        text = " ".join(causes) or "see its events"
        outcome.faults.append(f"Run {result.run_id} of job {job.name} failed: {text}")
    return result.success


def _unpassed(evaluations: Sequence[dg.AssetCheckEvaluation]) -> list[str]:
    """A sentence for each check that did not pass; of a run of many categories the last result is that of all."""
    faults: dict[str, str] = {}
    for check in evaluations:
        if not check.passed:
            facts = {name: value.value for name, value in check.metadata.items()}
            name = f"Check {check.check_name} of {check.asset_key.to_user_string()}"
            faults[name] = check.description or str(facts)
    return [f"{name}: {fault}" for name, fault in faults.items()]
