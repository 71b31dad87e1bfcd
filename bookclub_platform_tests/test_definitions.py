"""definitions.py: the graph that people see, as DESIGN's contracts name it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from bookclub_platform import sandbox
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.definitions import build_definitions

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
    assert names == PARTITIONED | {"catalogue_report", "tfidf_model"}
    assert not graph.external_asset_keys
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description
        assert node.owners
        assert node.freshness_policy
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
        "catalogue_report": {"books"},
        "tfidf_model": {"books"},
    }


def test_rows_and_model_have_a_check_that_blocks_what_follows(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    blocking = {key.name for key in graph.asset_check_keys if graph.get(key).blocking}
    assert blocking == {"pages_readable", "rows_fit", "key_unique", "count_did_not_collapse", "lists_are_sound"}


def test_the_checked_in_files_agree_on_the_location(tmp_path: Path) -> None:
    import tomllib

    import yaml

    top = Path(__file__).parents[1]
    (location,) = yaml.safe_load((top / "workspace.yaml").read_text())["load_from"]
    project = tomllib.loads((top / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert location["python_module"]["location_name"] == project["code_location_name"] == "bookclub_platform"
    assert location["python_module"]["module_name"] == project["code_location_target_module"]
