"""assets/ through `dg.materialize`: the whole graph on real parts, and what a failed check holds back."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.core import tables
from bookclub_platform.core.book import Category
from bookclub_platform.core.categories import note_listing, restore, retire
from bookclub_platform.core.loads import load_category
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.models import Registry
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sources import sources
from bookclub_platform_tests.local_http import changing_shop
from bookclub_platform_tests.mlflow_store import store_in
from bookclub_platform_tests.test_tables import BOOK

PARTITIONED = ["books_toscrape/raw_pages", "books_toscrape/cleaned_books", "books"]


@pytest.fixture
def environment(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database_url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path))
    monkeypatch.setenv("MLFLOW_ARTIFACTS_DESTINATION", str(tmp_path / "artifacts"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def materialize(shop_url: str, instance: dg.DagsterInstance, selection: list[str], tags: dict[str, str]) -> bool:
    definitions = build_definitions(load_settings(shop_url=shop_url))
    return dg.materialize(
        list(definitions.assets or []),
        instance=instance,
        resources=dict(definitions.resources or {}),
        selection=dg.AssetSelection.assets(*selection),
        tags=tags,
        raise_on_error=False,
    ).success


def listed_titles(database_url: str) -> list[str]:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return [row.title for row in connection.execute(tables.select_books())]


def test_the_whole_graph_leads_from_pages_to_a_champion(environment: Path, database_url: str) -> None:
    shop = Shop(sandbox.generate(40, 2))
    with sandbox.running(books=40, seed=2) as url, dg.DagsterInstance.ephemeral() as instance:
        keys = [category.slug for category in shop_categories(url)]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert materialize(url, instance, PARTITIONED, range_tags(keys))
        assert sorted(listed_titles(database_url)) == sorted(book.title for book in shop.catalogue.books)
        assert materialize(url, instance, ["tfidf_model"], {})
        checks = instance.event_log_storage.get_asset_check_summary_records(
            [dg.AssetCheckKey(dg.AssetKey("tfidf_model"), "lists_are_sound")]
        )
        assert len(checks) == 1
    champion = Registry(f"sqlite:///{environment}/mlflow.db").champion("tfidf_model")
    (line,) = map(json.loads, (environment / "logs" / "audit.jsonl").read_text().splitlines())
    assert (line["act"], line["outcome"], line["by"]) == ("promote-model", "done", "the gate")
    assert (line["model"], line["version"]) == ("tfidf_model", champion.version)
    assert champion.tags["data_version"] == str(len(keys))


@pytest.mark.parametrize("is_alike", [True, False], ids=["all alike", "one book in each category"])
def test_a_catalogue_that_nobody_can_judge_or_draw_gets_a_model(
    environment: Path, database_url: str, is_alike: bool
) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    names = ["sea"] * 10 if is_alike else [f"shelf-{at}" for at in range(10)]
    seen = [
        replace(
            BOOK,
            source_id=str(at),
            url=f"http://shop/{at}",
            title=("" if is_alike else "Whale ") + "abcdefghij"[at] * 4,  # a word of one book is not counted
            description=None,
            category=name,
            category_name=name,
        )
        for at, name in enumerate(names)
    ]
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE bookclub.books CASCADE"))
        load_category(connection, "shop", None, f"crawl-{is_alike}", seen, [], BOOK.seen_at)
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):  # the first without a champion, the second beside it
            assert materialize("http://127.0.0.1:9", instance, ["tfidf_model"], {})


def shop_categories(url: str) -> list[Category]:
    (shop,) = sources(load_settings(shop_url=url))
    with shop.fetcher() as fetcher:
        return list(shop.categories(fetcher))


def without_titles(path: str, page: str) -> str:
    """As after a change of layout."""
    return page.replace("<h1>", "<h4>").replace("</h1>", "</h4>")


def checks_of(instance: dg.DagsterInstance, *names: str) -> dict[str, bool]:
    """The outcome of the newest evaluation of each named check (`asset:check`)."""
    keys = [dg.AssetCheckKey(dg.AssetKey(asset.split("/")), check) for asset, check in (n.split(":") for n in names)]
    records = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    return {key.name: records[key].event.dagster_event.asset_check_evaluation_data.passed for key in keys}  # type: ignore[union-attr]


def test_pages_of_a_changed_layout_are_kept_aside_and_the_last_good_rows_stay(
    environment: Path, database_url: str
) -> None:
    with changing_shop(40) as shop, dg.DagsterInstance.ephemeral() as instance:
        url = shop.url
        keys = [category.slug for category in shop_categories(url)][:2]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert materialize(url, instance, PARTITIONED, range_tags(keys))
        before = listed_titles(database_url)
        few = "books_toscrape/cleaned_books:few_rejected"
        assert checks_of(instance, few, "books:count_did_not_collapse") == {
            "few_rejected": True,
            "count_did_not_collapse": True,
        }
        shop.change = without_titles
        assert materialize(url, instance, PARTITIONED, range_tags(keys))
        assert checks_of(instance, few) == {"few_rejected": False}
    assert listed_titles(database_url) == before
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rejected = connection.execute(sa.select(tables.rejected_books)).all()
    assert {row.url for row in rejected}
    assert all("title" in row.reason and row.raw_page.startswith("books_toscrape/") for row in rejected)


def test_a_category_that_is_missing_once_keeps_its_books_and_a_retired_one_does_not(
    environment: Path, database_url: str
) -> None:
    engine = sa.create_engine(database_url, poolclass=sa.NullPool)
    with sandbox.running(books=40, seed=2) as url, dg.DagsterInstance.ephemeral() as instance:
        listed = shop_categories(url)
        keys = [category.slug for category in listed][:2]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert materialize(url, instance, PARTITIONED, range_tags(keys))
        before = listed_titles(database_url)
    with sandbox.running(books=1, seed=3) as sick, dg.DagsterInstance.ephemeral() as instance:
        assert keys[0] not in [category.slug for category in shop_categories(sick)]
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert materialize(sick, instance, PARTITIONED, range_tags(keys))
        assert checks_of(instance, "books_toscrape/raw_pages:all_pages_came") == {"all_pages_came": False}, "a warning"
    assert listed_titles(database_url) == before
    with engine.begin() as connection:
        note_listing(connection, "books_toscrape", listed, datetime.now(UTC))
        books = retire(connection, "books_toscrape", keys[0], datetime.now(UTC), by="operator")
    assert books > 0
    assert len(listed_titles(database_url)) == len(before) - books
    with sandbox.running(books=40, seed=2) as url, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, keys)
        assert materialize(url, instance, PARTITIONED, range_tags(keys))
        assert len(listed_titles(database_url)) == len(before) - books, "a run over all must pass a retired one over"
        assert checks_of(instance, "books_toscrape/raw_pages:all_pages_came") == {"all_pages_came": True}
        assert not materialize(url, instance, PARTITIONED, {"dagster/partition": keys[0]})
        with engine.begin() as connection:
            restore(connection, "books_toscrape", keys[0])
        assert materialize(url, instance, PARTITIONED, {"dagster/partition": keys[0]})
    assert listed_titles(database_url) == before


def test_a_category_that_the_shop_does_not_have_fails_with_its_name(environment: Path) -> None:
    with sandbox.running(books=40, seed=2) as url, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, ["cookery-on-mars"])
        assert not materialize(url, instance, PARTITIONED, {"dagster/partition": "cookery-on-mars"})
        logs = instance.all_logs(instance.get_runs(limit=1)[0].run_id)
        failures = [
            event.dagster_event.step_failure_data
            for event in logs
            if event.dagster_event and event.dagster_event.is_step_failure
        ]
        assert any("cookery-on-mars" in failure.error_display_string for failure in failures)
