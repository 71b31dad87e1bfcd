"""What a person finds on the page of each asset: its definition, and what its last materialisation says and shows."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.core import tables
from bookclub_platform.core.book import Book
from bookclub_platform.core.columns import MEANINGS
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform_tests.mlflow_store import store_in
from bookclub_platform_tests.test_graph import shop_categories

PARTITIONED = ["books_toscrape/raw_pages", "books_toscrape/cleaned_books", "books", "books_toscrape/covers"]
SHORT = 1000  # characters: Dagster shows a shorter Markdown at once, and a longer one after a click


class Built(NamedTuple):
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    category: str
    home: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Built]:
    """Every asset materialised once from a small shop; of the partitioned ones, its largest category."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch, sandbox.running(books=12, seed=2) as url:
        patch.setenv("BOOKCLUB_HOME", str(home))
        patch.setenv("BOOKCLUB_DATABASE_URL", database_url)
        patch.setenv("MLFLOW_TRACKING_URI", store_in(home))
        patch.chdir(home)
        definitions = build_definitions(load_settings(shop_url=url))
        keys = [category.slug for category in shop_categories(url)]
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions(CATEGORIES, keys)
            for names, tags in ((PARTITIONED, range_tags(keys)), (["catalogue_report", "tfidf_model"], {})):
                assert materialize(definitions, instance, names, tags)
            yield Built(definitions, instance, keys[0], home)


def materialize(
    definitions: dg.Definitions, instance: dg.DagsterInstance, names: list[str], tags: dict[str, str]
) -> bool:
    return dg.materialize(
        list(definitions.assets or []),
        instance=instance,
        resources=dict(definitions.resources or {}),
        selection=dg.AssetSelection.assets(*names),
        tags=tags,
    ).success


def metadata_of(built: Built, name: str) -> dict[str, Any]:
    """What the newest materialisation of the asset says, of the one category where it has partitions."""
    asked = dg.AssetRecordsFilter(
        dg.AssetKey(name.split("/")), asset_partitions=[built.category] if name in PARTITIONED else None
    )
    (record,) = built.instance.fetch_materializations(asked, limit=1).records
    assert record.asset_materialization is not None
    return dict(record.asset_materialization.metadata)


def pictures_in(metadata: dict[str, Any]) -> dict[str, str]:
    """Name -> SVG of each picture."""
    found = {}
    for name, value in metadata.items():
        if isinstance(value, dg.MarkdownMetadataValue) and "data:image" in (value.value or ""):
            encoded = re.search(r"base64,([^)]+)\)$", value.value or "")
            assert encoded is not None
            found[name] = base64.b64decode(encoded[1]).decode()
    return found


def test_every_asset_says_what_it_is_whose_it_is_and_what_its_columns_mean(built: Built) -> None:
    graph = built.definitions.resolve_asset_graph()
    assert len(list(graph.get_all_asset_keys())) == 6
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and node.owners and node.kinds and node.code_version, key
        assert node.group_name in {"books_toscrape", "catalogue", "models"}, key
        schema = node.metadata["dagster/column_schema"]
        without = [column.name for column in schema.columns if not column.description]
        assert schema.columns and not without, (key, without)


def test_every_materialisation_has_a_row_count_a_preview_and_a_link(built: Built) -> None:
    for name in [*PARTITIONED, "catalogue_report", "tfidf_model"]:
        metadata = metadata_of(built, name)
        assert metadata["dagster/row_count"].value > 0, name
        assert metadata["preview"].value.records, name
        links = [value.value for value in metadata.values() if isinstance(value, dg.UrlMetadataValue)]
        assert links and all(link.startswith("http://127.0.0.1") for link in links), name


def test_links_lead_to_the_shop_the_api_and_mlflow(built: Built) -> None:
    assert "/catalogue/category/books/" in metadata_of(built, "books_toscrape/raw_pages")["shop_page"].value
    assert metadata_of(built, "books")["api"].value == f"http://127.0.0.1:8000/books?category={built.category}"
    assert metadata_of(built, "catalogue_report")["report"].value == "http://127.0.0.1:8000/report"
    assert "/runs/" in metadata_of(built, "tfidf_model")["mlflow_run"].value


def test_the_pictures_of_a_category_are_shown_without_a_click(built: Built) -> None:
    metadata = metadata_of(built, "books")
    found = pictures_in(metadata)
    assert found.keys() == {"prices", "stars", "stock", "price_history"}
    assert "price in GBP" in found["prices"]
    assert all(len(metadata[name].value) < SHORT for name in found)
    assert "seconds since the start" in pictures_in(metadata_of(built, "books_toscrape/raw_pages"))["latency"]


def test_the_report_shows_the_whole_and_says_whether_price_and_rating_belong_together(built: Built) -> None:
    metadata = metadata_of(built, "catalogue_report")
    assert metadata["dagster/row_count"].value == 12
    assert {"prices", "stars", "stock", "books_per_category", "price_history"} <= pictures_in(metadata).keys()
    assert "price and rating" in metadata["price_against_rating"].value
    page = (built.home / "report" / "catalogue.html").read_text(encoding="utf-8")
    assert metadata["file"].value == str(built.home / "report" / "catalogue.html")
    assert "12</b>books listed" in page and metadata["price_against_rating"].value[:40] in page


def test_the_report_is_made_anew_after_a_load_and_only_then(built: Built) -> None:
    def wanted(cursor: Any) -> Any:
        return dg.evaluate_automation_conditions(defs=built.definitions, instance=built.instance, cursor=cursor)

    first = wanted(None)
    quiet = wanted(first.cursor)
    assert quiet.total_requested == 0
    assert materialize(built.definitions, built.instance, ["books"], range_tags([built.category]))
    loaded = wanted(quiet.cursor)
    assert loaded.get_requested_partitions(dg.AssetKey("catalogue_report")) == {None}
    assert materialize(built.definitions, built.instance, ["catalogue_report"], {})
    assert wanted(loaded.cursor).total_requested == 0


def test_the_meaning_of_every_column_is_said_and_of_none_that_there_is_not() -> None:
    assert set(tables.books.columns.keys()) | set(Book.__dataclass_fields__) <= MEANINGS.keys()


def test_the_model_shows_its_decision_first_and_a_page_of_it_lies_in_mlflow(built: Built) -> None:
    metadata = metadata_of(built, "tfidf_model")
    assert metadata["decision"].value == "It is the first model, and breaks no guardrail."
    assert pictures_in(metadata).keys() == {"scores", "by_category", "exposure", "scores_over_time", "map"}
    assert metadata["model_page"].value == f"{metadata['mlflow_run'].value}/artifacts/pages/model.html"
    (page,) = built.home.rglob("pages/model.html")
    text = page.read_text(encoding="utf-8")
    assert "<h1>Promoted</h1>" in text and metadata["decision"].value in text and "Sample recommendations" in text
