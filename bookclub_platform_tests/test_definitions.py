"""definitions.py: the graph that people see, as DESIGN's contracts name it, and its schedules and sensor ticked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from bookclub_platform import sandbox
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.sensors import discover
from bookclub_platform.sources import sources

PARTITIONED = {"books_toscrape/raw_pages", "books_toscrape/cleaned_books", "books_toscrape/covers", "books"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with sandbox.running(books=60, seed=3) as address:
        yield load_settings(shop_url=address, home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def definitions(settings: Settings) -> dg.Definitions:
    return build_definitions(settings)


def test_the_graph_has_the_named_assets_and_none_from_outside(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert names == PARTITIONED | {"tfidf_model"}
    assert not graph.external_asset_keys
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.kinds
        assert node.group_name in {"books_toscrape", "catalogue", "models"}
        is_partitioned = key.to_user_string() in PARTITIONED
        assert (node.partitions_def is not None) == is_partitioned
        if is_partitioned:
            assert node.partitions_def == dg.DynamicPartitionsDefinition(name="categories")
            assert node.backfill_policy == dg.BackfillPolicy.single_run()


def test_each_step_follows_the_one_before(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    parents = {
        key.to_user_string(): {p.to_user_string() for p in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }
    assert parents == {
        "books_toscrape/raw_pages": set(),
        "books_toscrape/cleaned_books": {"books_toscrape/raw_pages"},
        "books_toscrape/covers": {"books_toscrape/cleaned_books"},
        "books": {"books_toscrape/cleaned_books"},
        "tfidf_model": {"books"},
    }


def test_rows_and_model_have_a_check_that_blocks_what_follows(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {"rows_fit", "key_unique", "count_did_not_collapse", "lists_are_sound"}


def test_the_sensor_adds_the_categories_that_the_shop_lists_and_then_no_more(definitions: dg.Definitions) -> None:
    sensor = definitions.resolve_sensor_def("new_categories")
    with dg.DagsterInstance.ephemeral() as instance:
        tick = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        (request,) = tick.dynamic_partitions_requests
        assert len(request.partition_keys) > 10
        instance.add_dynamic_partitions("categories", list(request.partition_keys))
        again = sensor.evaluate_tick(dg.build_sensor_context(instance=instance))
        assert not again.dynamic_partitions_requests
        assert again.skip_message


def test_the_daily_crawl_asks_for_all_categories_in_one_run(definitions: dg.Definitions, tmp_path: Path) -> None:
    schedule = definitions.resolve_schedule_def("daily_crawl")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        night = datetime(2026, 11, 22, 3, tzinfo=UTC)
        skipped = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=night))
        assert "new_categories" in (skipped.skip_message or "")
        instance.add_dynamic_partitions("categories", ["travel", "poetry", "crime"])
        tick = schedule.evaluate_tick(dg.build_schedule_context(instance, scheduled_execution_time=night))
        (request,) = tick.run_requests or []
        assert request.tags["dagster/asset_partition_range_start"] == "travel"
        assert request.tags["dagster/asset_partition_range_end"] == "crime"
        assert {key.to_user_string() for key in request.asset_selection or []} == PARTITIONED - {
            "books_toscrape/covers"
        }


def test_a_source_that_fails_holds_no_other_back(settings: Settings, tmp_path: Path) -> None:
    listed = tmp_path / "sources.yaml"
    listed.write_text(
        "sources:\n"
        "  - {name: gone_shop, kind: books_toscrape, address: 'http://127.0.0.1:9'}\n"
        f"  - {{name: books_toscrape, kind: books_toscrape, address: '{settings.shop_url}'}}\n"
    )
    found = sources(load_settings(shop_url=settings.shop_url, sources=listed))
    discovery = discover(found)
    assert list(discovery.keys) == ["books_toscrape"]
    assert "127.0.0.1:9" in discovery.failures["gone_shop"]
    definitions = build_definitions(load_settings(shop_url=settings.shop_url, sources=listed))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_dynamic_partitions("categories", discovery.unknown_to(instance))
        night = dg.build_schedule_context(instance, scheduled_execution_time=datetime(2026, 11, 22, 3, tzinfo=UTC))
        tick = definitions.resolve_schedule_def("daily_crawl").evaluate_tick(night)
    runs = [{key.to_user_string() for key in request.asset_selection or []} for request in tick.run_requests or []]
    assert runs == [{f"{name}/raw_pages", f"{name}/cleaned_books", "books"} for name in ("gone_shop", "books_toscrape")]


def test_the_weekly_retrain_is_on(definitions: dg.Definitions) -> None:
    schedule = definitions.resolve_schedule_def("weekly_retrain")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.cron_schedule == "0 5 * * 1"


def test_the_checked_in_files_agree_on_the_location(tmp_path: Path) -> None:
    import tomllib

    import yaml

    top = Path(__file__).parents[1]
    (location,) = yaml.safe_load((top / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert location["python_module"]["location_name"] == project["code_location_name"] == "bookclub_platform"
    assert location["python_module"]["module_name"] == project["code_location_target_module"]
