"""Settings -> everything that Dagster shows and runs: the composition root on this side.

dagster dev                     # in the project's folder
dg check defs
"""

from __future__ import annotations

import dagster as dg

from bookclub_platform.alarms import alarms_sensor, failed_partitions_sensor
from bookclub_platform.assets.catalogue_report import catalogue_report
from bookclub_platform.assets.covers import covers_asset
from bookclub_platform.assets.source import source_assets
from bookclub_platform.assets.table import books_asset
from bookclub_platform.assets.tfidf_model import tfidf_model
from bookclub_platform.core.progress import NoProgress, Progress
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.freshness import with_freshness
from bookclub_platform.lost_runs import lost_runs_sensor
from bookclub_platform.resources import Api, BooksDatabase, DataFolder, MlflowRegistry
from bookclub_platform.schedules import (
    clean,
    covers,
    crawl,
    daily_covers_schedule,
    daily_crawl_schedule,
    report,
    retrain,
    weekly_retrain_schedule,
)
from bookclub_platform.sensors import categories_sensor, report_after_load, retention_sensor
from bookclub_platform.sources import sources


def build_definitions(settings: Settings, progress: Progress | None = None) -> dg.Definitions:
    """The platform for these settings; `progress` is told of each category and model that is done."""
    found = sources(settings)
    assets = [
        *(asset for source in found for asset in [*source_assets(source), covers_asset(source)]),
        books_asset(found),
        catalogue_report,
        tfidf_model,
    ]
    return dg.Definitions(
        assets=with_freshness(assets, settings),
        jobs=[crawl, clean, covers, report, retrain],
        schedules=[
            daily_crawl_schedule(found, settings),
            daily_covers_schedule(found, settings),
            weekly_retrain_schedule(found, settings),
        ],
        sensors=[
            *map(categories_sensor, found),
            alarms_sensor(settings),
            failed_partitions_sensor(),
            lost_runs_sensor(),
            retention_sensor(settings),
            report_after_load,
        ],
        resources={
            "files": DataFolder(home=str(settings.home)),
            "database": BooksDatabase(),
            "api": Api(url=settings.api_url),
            "pipes": dg.PipesSubprocessClient(),
            "registry": MlflowRegistry(
                ui_url=f"http://127.0.0.1:{settings.mlflow_port}",
                dagster_url=f"http://127.0.0.1:{settings.dagster_port}",
            ),
            "progress": progress or NoProgress(),
        },
        # One process a run: four empty steps took 23 s in a process each, 2.8 s in one.
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return build_definitions(load_settings())
