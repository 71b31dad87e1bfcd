"""Cleaned rows of every shop -> table `bookclub.books`: one transaction per shop and category."""

import time
from collections.abc import Sequence
from dataclasses import asdict

import dagster as dg

from bookclub_platform.assets._common import ALL_IN_ONE_RUN, DATA_ENGINEERING, PREVIEW_ROWS, categories, preview
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.tables import load_category, select_books, select_page
from bookclub_platform.resources import BooksDatabase, DataFolder

_SHOWN = ["id", "source", "title", "price", "rating", "stock", "updated_at"]


def books_asset(source_names: Sequence[str]) -> dg.AssetsDefinition:
    """The asset `books` over the given shops. A shop without cleaned rows of a category holds no other one back."""

    @dg.asset(
        name="books",
        description="Table bookclub.books: every book of every shop as last seen; what is gone is marked, not deleted.",
        deps=[dg.AssetKey([name, "cleaned_books"]) for name in source_names],
        partitions_def=categories,
        backfill_policy=ALL_IN_ONE_RUN,
        group_name="catalogue",
        owners=[DATA_ENGINEERING],
        kinds={"python", "postgres", "table"},
        code_version="1",
    )
    def books(
        context: dg.AssetExecutionContext,
        files: DataFolder,
        database: BooksDatabase,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult:
        for key in context.partition_keys:
            started = time.perf_counter()
            figures = {name: _load(name, key, files, database) for name in source_names}
            with database.begin() as connection:
                shown = connection.execute(select_page(select_books(category=key), None, PREVIEW_ROWS)).mappings().all()
            metadata = {
                "dagster/row_count": sum(row.get("rows", 0) for row in figures.values()),
                "loads": figures,
                "seconds": round(time.perf_counter() - started, 3),
                "preview": preview([{name: row[name] for name in _SHOWN} for row in shown]),
            }
            context.add_asset_metadata(metadata, partition_key=key)
            progress.advance("load", key)
        return dg.MaterializeResult()

    return books


def _load(source: str, category: str, files: DataFolder, database: BooksDatabase) -> dict[str, int]:
    cleaned = files.read_cleaned(source, category)
    if cleaned is None:
        return {}
    with database.begin() as connection:
        result = load_category(
            connection,
            source,
            category,
            cleaned.crawl_id,
            cleaned.books,
            cleaned.rejected,
            cleaned.crawled_at,
            cleaned.is_complete,
        )
    return {"rows": len(cleaned.books)} | asdict(result)
