"""schedules.py, sensors.py, freshness.py ticked for real: what they ask for, and why they ask for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES, range_tags, stretches
from bookclub_platform.core.book import Category
from bookclub_platform.core.categories import note_listing, restore, retire, retired_slugs
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.freshness import longest_pause
from bookclub_platform.schedules import run_in_progress, too_little_new
from bookclub_platform.sensors import discover
from bookclub_platform.sources import sources

NIGHT = datetime(2026, 11, 22, 3, tzinfo=UTC)
CRAWLED = {"books_toscrape/raw_pages", "books_toscrape/cleaned_books", "books"}
KEYS = ["travel", "poetry", "crime", "art"]


@pytest.fixture(scope="module")
def shop_url() -> Iterator[str]:
    with sandbox.running(books=60, seed=3) as url:
        yield url


@pytest.fixture
def settings(shop_url: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url)
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("BOOKCLUB_SHOP_URL", shop_url)
    return load_settings()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@pytest.fixture
def database(database_url: str) -> Iterator[sa.Engine]:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    yield engine
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE bookclub.categories"))


def night(instance: dg.DagsterInstance) -> dg.ScheduleEvaluationContext:
    return dg.build_schedule_context(instance, scheduled_execution_time=NIGHT)


def crawl_tick(settings: Settings, instance: dg.DagsterInstance) -> dg.ScheduleExecutionData:
    return build_definitions(settings).resolve_schedule_def("daily_crawl").evaluate_tick(night(instance))


def ranges(tick: dg.ScheduleExecutionData) -> list[tuple[str, str]]:
    bounds = ["dagster/asset_partition_range_start", "dagster/asset_partition_range_end"]
    return [(request.tags[bounds[0]], request.tags[bounds[1]]) for request in tick.run_requests or []]


def test_all_are_on_at_the_hours_of_the_settings(shop_url: str) -> None:
    definitions = build_definitions(
        load_settings(shop_url=shop_url, timezone="Europe/Vienna", crawl_schedule="30 1 * * *")
    )
    crons = {}
    for schedule in definitions.get_repository_def().schedule_defs:
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "Europe/Vienna"
        crons[schedule.name] = schedule.cron_schedule
    assert crons["daily_crawl"] == "30 1 * * *"
    assert crons["daily_covers"] == "0 6 * * *"
    assert crons["weekly_retrain"] == "0 5 * * 1"
    for sensor in definitions.get_repository_def().sensor_defs:
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("crawl_schedule", "61 3 * * *", "minute"),
        ("retrain_schedule", "0 5 * *", "minute, hour, day, month and weekday"),
        ("covers_schedule", "0 0 6 * * *", "fields"),
        ("timezone", "Europe/Atlantis", "time zone such as"),
        ("retrain_coverage", "1.5", "less than or equal to 1"),
        ("alarm_webhook", "hooks.example", "must be an address"),
    ],
)
def test_a_wrong_hour_or_zone_is_told_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, setting: str, value: str, said: str
) -> None:
    monkeypatch.setenv(f"BOOKCLUB_{setting.upper()}", value)
    with pytest.raises(ConfigurationError, match=rf"BOOKCLUB_{setting.upper()}: .*{said}"):
        load_settings()


def test_the_crawl_takes_all_categories_in_one_run(settings: Settings, instance: dg.DagsterInstance) -> None:
    assert "books_toscrape_categories" in str(crawl_tick(settings, instance).skip_message).replace(
        "<source>", "books_toscrape"
    )
    instance.add_dynamic_partitions(CATEGORIES, KEYS)
    tick = crawl_tick(settings, instance)
    assert ranges(tick) == [("travel", "art")]
    (request,) = tick.run_requests or []
    assert {key.to_user_string() for key in request.asset_selection or []} == CRAWLED


def test_a_retired_category_is_left_out_and_one_restored_is_back(
    settings: Settings, instance: dg.DagsterInstance, database: sa.Engine
) -> None:
    instance.add_dynamic_partitions(CATEGORIES, KEYS)
    with database.begin() as connection:
        note_listing(connection, "books_toscrape", [Category(key, key, "") for key in KEYS], NIGHT)
        retire(connection, "books_toscrape", "poetry", NIGHT, by="operator")
    assert ranges(crawl_tick(settings, instance)) == [("travel", "travel"), ("crime", "art")]
    with database.begin() as connection:
        restore(connection, "books_toscrape", "poetry")
    assert ranges(crawl_tick(settings, instance)) == [("travel", "art")]


def test_neighbours_stay_together() -> None:
    assert stretches(KEYS, {"travel", "crime"}) == [["poetry"], ["art"]]
    assert stretches(KEYS, set()) == [KEYS]
    assert stretches(KEYS, KEYS) == []


def run_of(instance: dg.DagsterInstance, settings: Settings, status: dg.DagsterRunStatus, tags: dict[str, str]) -> str:
    """A run of the job crawl in that state, as the queue and the launcher leave it."""
    job = build_definitions(settings).resolve_job_def("crawl")
    return instance.create_run_for_job(job, status=status, tags=tags).run_id


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
def test_a_crawl_that_still_runs_is_not_started_twice(
    settings: Settings, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    instance.add_dynamic_partitions(CATEGORIES, KEYS)
    run_id = run_of(instance, settings, status, range_tags(KEYS))
    tick = crawl_tick(settings, instance)
    assert not tick.run_requests
    assert run_id in str(tick.skip_message)
    covers = build_definitions(settings).resolve_schedule_def("daily_covers").evaluate_tick(night(instance))
    assert covers.run_requests, "another job is no reason"


def test_a_run_that_ended_or_of_one_category_holds_no_night_back(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    instance.add_dynamic_partitions(CATEGORIES, KEYS)
    run_of(instance, settings, dg.DagsterRunStatus.FAILURE, range_tags(KEYS))
    run_of(instance, settings, dg.DagsterRunStatus.STARTED, {"dagster/partition": "art"})
    assert ranges(crawl_tick(settings, instance)) == [("travel", "art")]


def materialized(instance: dg.DagsterInstance, asset: str, partition: str | None = None) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))


def retrain_tick(settings: Settings, instance: dg.DagsterInstance) -> dg.ScheduleExecutionData:
    return build_definitions(settings).resolve_schedule_def("weekly_retrain").evaluate_tick(night(instance))


def test_the_model_waits_until_enough_categories_came_in_anew(
    settings: Settings, instance: dg.DagsterInstance, database: sa.Engine
) -> None:
    instance.add_dynamic_partitions(CATEGORIES, [*KEYS, "of-a-removed-source"])
    with database.begin() as connection:
        note_listing(connection, "books_toscrape", [Category(key, key, "") for key in KEYS], NIGHT)
    for key in KEYS[:3]:
        materialized(instance, "books", key)
    tick = retrain_tick(settings, instance)
    assert not tick.run_requests
    for part in ("3 of 4", "90%", "Missing: art.", "BOOKCLUB_RETRAIN_COVERAGE"):
        assert part in str(tick.skip_message)
    materialized(instance, "books", "art")
    assert retrain_tick(settings, instance).run_requests
    materialized(instance, "tfidf_model")
    assert "0 of 4 categories came in anew since the model of" in str(retrain_tick(settings, instance).skip_message)


def test_a_retired_category_is_not_waited_for(
    settings: Settings, instance: dg.DagsterInstance, database: sa.Engine
) -> None:
    instance.add_dynamic_partitions(CATEGORIES, KEYS)
    with database.begin() as connection:
        note_listing(connection, "books_toscrape", [Category(key, key, "") for key in KEYS], NIGHT)
        retire(connection, "books_toscrape", "art", NIGHT, by="operator")
    for key in KEYS[:3]:
        materialized(instance, "books", key)
    assert retrain_tick(settings, instance).run_requests


def test_many_missing_categories_are_named_in_part(instance: dg.DagsterInstance) -> None:
    said = too_little_new(instance, [f"c{at:02}" for at in range(15)], 0.5)
    assert said is not None
    assert "c09 and 5 more" in said


def test_a_retrain_in_progress_is_named(settings: Settings, instance: dg.DagsterInstance) -> None:
    job = build_definitions(settings).resolve_job_def("retrain")
    run_id = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED).run_id
    assert run_id in str(retrain_tick(settings, instance).skip_message)


def test_a_launch_that_never_got_into_the_queue_holds_no_night_up(
    settings: Settings, instance: dg.DagsterInstance
) -> None:
    for name, asset in (("crawl", "books_toscrape/raw_pages"), ("retrain", "tfidf_model")):
        job = build_definitions(settings).resolve_job_def(name)
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED)
        assert run_in_progress(instance, name, dg.AssetKey.from_user_string(asset)) is None
        starting = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTING).run_id
        assert starting in str(run_in_progress(instance, name, dg.AssetKey.from_user_string(asset)))


def sensor_tick(
    settings: Settings, instance: dg.DagsterInstance, name: str = "books_toscrape"
) -> dg.SensorExecutionData:
    sensor = build_definitions(settings).resolve_sensor_def(f"{name}_categories")
    return sensor.evaluate_tick(dg.build_sensor_context(instance=instance))


def test_the_sensor_adds_what_the_shop_lists_and_then_no_more(settings: Settings, instance: dg.DagsterInstance) -> None:
    (request,) = sensor_tick(settings, instance).dynamic_partitions_requests or []
    assert len(request.partition_keys) > 10
    instance.add_dynamic_partitions(CATEGORIES, list(request.partition_keys))
    again = sensor_tick(settings, instance)
    assert not again.dynamic_partitions_requests
    assert again.skip_message == "books_toscrape lists what we know."


def test_the_sensor_retires_what_has_been_away_and_restores_what_is_back(
    settings: Settings, instance: dg.DagsterInstance, database: sa.Engine
) -> None:
    (shop,) = sources(settings)
    listed = discover([shop]).listed[shop.name]
    with database.begin() as connection:
        gone = [*listed, Category("gone", "Gone", "")]
        note_listing(connection, shop.name, gone, datetime.now(UTC) - timedelta(days=3))
        note_listing(connection, shop.name, listed, datetime.now(UTC) - timedelta(days=2))
        note_listing(connection, shop.name, listed, datetime.now(UTC) - timedelta(days=1))
        retire(connection, shop.name, listed[0].slug, datetime.now(UTC), by="shop")
    instance.add_dynamic_partitions(CATEGORIES, ["gone", *(category.slug for category in listed)])
    said = str(sensor_tick(settings, instance).skip_message)
    assert "books_toscrape/gone is gone: retired with 0 books" in said
    assert f"books_toscrape/{listed[0].slug} is listed again: restored" in said
    with database.begin() as connection:
        assert retired_slugs(connection, shop.name) == {"gone"}
    assert "gone" in instance.get_dynamic_partitions(CATEGORIES), "a partition keeps its history"


def test_a_source_that_fails_holds_no_other_back(settings: Settings, instance: dg.DagsterInstance) -> None:
    listed = settings.home / "sources.yaml"
    listed.write_text(
        "sources:\n"
        "  - {name: gone_shop, kind: books_toscrape, address: 'http://127.0.0.1:9'}\n"
        f"  - {{name: books_toscrape, kind: books_toscrape, address: '{settings.shop_url}'}}\n"
    )
    both = load_settings(sources=listed)
    discovery = discover(sources(both))
    assert list(discovery.keys) == ["books_toscrape"]
    assert "127.0.0.1:9" in discovery.failures["gone_shop"]
    with pytest.raises(Exception, match="gone_shop could not be asked"):
        sensor_tick(both, instance, "gone_shop")
    assert sensor_tick(both, instance).dynamic_partitions_requests
    instance.add_dynamic_partitions(CATEGORIES, discovery.unknown_to(instance))
    runs = [
        {key.to_user_string() for key in request.asset_selection or []}
        for request in crawl_tick(both, instance).run_requests or []
    ]
    assert runs == [{f"{name}/raw_pages", f"{name}/cleaned_books", "books"} for name in ("gone_shop", "books_toscrape")]


@pytest.mark.parametrize(
    ("cron", "zone", "pause"),
    [
        ("0 3 * * *", "UTC", timedelta(days=1)),
        ("0 3 * * *", "Europe/Vienna", timedelta(days=1, hours=1)),
        ("0 5 * * 1", "UTC", timedelta(days=7)),
        ("0 6 * * 1-5", "UTC", timedelta(days=3)),
        ("*/5 * * * *", "UTC", timedelta(minutes=5)),
    ],
)
def test_the_longest_pause_of_a_schedule_is_found(cron: str, zone: str, pause: timedelta) -> None:
    assert longest_pause(cron, zone) == pause


def test_every_asset_is_late_by_its_own_schedule(shop_url: str) -> None:
    graph = build_definitions(
        load_settings(shop_url=shop_url, crawl_schedule="0 */6 * * *", covers_schedule="0 6 * * *")
    ).resolve_asset_graph()
    windows = policies(graph, [*CRAWLED, "books_toscrape/covers", "tfidf_model"])
    assert windows["books_toscrape/raw_pages"] == windows["books"] == (timedelta(hours=9), timedelta(hours=6.75))
    assert windows["books_toscrape/covers"] == (timedelta(hours=36), timedelta(hours=27))
    assert windows["tfidf_model"] == (timedelta(days=10.5), timedelta(days=7.875))


def policies(graph: dg.AssetGraph, names: Sequence[str]) -> dict[str, tuple[timedelta, timedelta]]:
    found = {name: graph.get(dg.AssetKey.from_user_string(name)).freshness_policy for name in names}
    return {
        name: (policy.fail_window.to_timedelta(), policy.warn_window.to_timedelta()) for name, policy in found.items()
    }


def test_dagster_shows_how_late_an_asset_may_be_of_any_schedule(shop_url: str) -> None:
    every_53_minutes = load_settings(shop_url=shop_url, crawl_schedule="0,53 * * * *")
    window = policies(build_definitions(every_53_minutes).resolve_asset_graph(), ["books"])["books"]
    assert all(one % timedelta(seconds=1) == timedelta(0) for one in window), "its UI takes whole seconds alone"
