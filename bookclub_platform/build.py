"""`bookclub build`: shop -> table -> model, everything materialised once in this process, with progress on the way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import Settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.local.home import dagster_home, mark_built
from bookclub_platform.resources import ShopFetcher
from bookclub_platform.sensors import discover
from bookclub_platform.sources import sources

STAGES = 3  # of each category: crawl, clean, load
# The terminal is for the progress bar; Dagster keeps every event in its storage.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class BuildFailed(BookclubError):
    """A run ended in failure; all its events are in Dagster's storage."""


def build(settings: Settings, progress_over: Callable[[int], AbstractContextManager[Progress]]) -> None:
    """Find the categories, then run the jobs `crawl`, all categories in one run, and `retrain`.

    `progress_over(n)` gives the one to tell about the `n` steps to come.

    Raises:
        BuildFailed: a run failed; the text has the first cause.
    """
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        shop = ShopFetcher(delay_s=settings.delay_s, concurrency=settings.crawl_concurrency)
        instance.add_dynamic_partitions(CATEGORIES, discover(instance, sources(settings), shop))
        keys = instance.get_dynamic_partitions(CATEGORIES)
        with progress_over(len(keys) * STAGES + 1) as progress:
            definitions = build_definitions(settings, progress)
            _run(definitions.resolve_job_def("crawl"), instance, range_tags(keys))
            _run(definitions.resolve_job_def("retrain"), instance, {})
    mark_built(settings.home)


def _run(job: dg.JobDefinition, instance: dg.DagsterInstance, tags: dict[str, str]) -> None:
    result = job.execute_in_process(run_config=_QUIET, instance=instance, tags=tags, raise_on_error=False)
    if not result.success:
        causes = [_root(event.step_failure_data.error) for event in result.all_node_events if event.is_step_failure]
        raise BuildFailed(f"Run {result.run_id} of job {job.name} failed: {' '.join(causes) or 'see its events'}")


def _root(error: SerializableErrorInfo | None) -> str:
    """What went wrong at first, without the frames that it was raised through."""
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error is not None else "no error was kept"
