"""Cleaned rows of every source -> table `bookclub.books`: one transaction per source and category."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg

from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    PREVIEW_ROWS,
    categories,
    preview,
    whole_key,
)
from bookclub_platform.core.loads import LEAST_SHARE, load_category, retire_category
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.tables import select_books, select_page
from bookclub_platform.resources import BooksDatabase, DataFolder
from bookclub_platform.sources import Source

_SHOWN = ["id", "source", "title", "price", "rating", "stock", "updated_at"]


class LoadConfig(dg.Config):
    """`least_share`: a crawl that finds less than this share of a category's books is not believed, and delists
    nothing. Set it to 0 in the launchpad once a person has looked, and the books are gone."""

    least_share: float = LEAST_SHARE


def books_asset(sources: Sequence[Source]) -> dg.AssetsDefinition:
    """The asset `books` over the given sources. One that has no cleaned rows of a category holds no other back."""

    @dg.asset(
        name="books",
        description="Table bookclub.books: each book of each source as last seen; what is gone is marked, not deleted.",
        deps=[dg.AssetKey([source.name, "cleaned_books"]) for source in sources],
        partitions_def=categories,
        backfill_policy=ALL_IN_ONE_RUN,
        group_name="catalogue",
        owners=[DATA_ENGINEERING],
        kinds={"python", "postgres", "table"},
        code_version="2",
        check_specs=[
            dg.AssetCheckSpec(
                "count_did_not_collapse",
                asset="books",
                description="No crawl found less than 80 % of the books of a category. One that did delisted nothing; "
                "to believe it, materialise the partition with least_share: 0.",
            )
        ],
    )
    def books(
        context: dg.AssetExecutionContext,
        config: LoadConfig,
        files: DataFolder,
        database: BooksDatabase,
        progress: dg.ResourceParam[Progress],
    ) -> dg.MaterializeResult:
        collapsed: list[str] = []
        for key in context.partition_keys:
            started = time.perf_counter()
            loads = {
                source.name: _load(source, key, files, database, config.least_share)
                for source in sources
                if _is_of(source, key)
            }
            collapsed += [f"{name}/{key}" for name, load in loads.items() if load.get("is_shrunken")]
            metadata = {
                "dagster/row_count": sum(load.get("rows", 0) for load in loads.values()),
                "loads": loads,
                "seconds": round(time.perf_counter() - started, 3),
                "preview": _preview(key, database),
            }
            context.add_asset_metadata(metadata, partition_key=key)
            progress.advance("load", key)
        check = dg.AssetCheckResult(
            check_name="count_did_not_collapse", passed=not collapsed, metadata={"collapsed": collapsed}
        )
        return dg.MaterializeResult(check_results=[check])

    return books


def _is_of(source: Source, key: str) -> bool:
    return source.has_categories or key == whole_key(source.name)


def _load(source: Source, key: str, files: DataFolder, database: BooksDatabase, least_share: float) -> dict[str, Any]:
    cleaned = files.read_cleaned(source.name, key)
    if cleaned is None:
        return {}
    with database.begin() as connection:
        if cleaned.is_gone:
            delisted = retire_category(connection, source.name, key, cleaned.crawl_id, cleaned.crawled_at)
            return {"rows": 0, "is_gone": True, "delisted": delisted}
        result = load_category(
            connection,
            source.name,
            key if source.has_categories else None,
            cleaned.crawl_id,
            cleaned.books,
            cleaned.rejected,
            cleaned.crawled_at,
            cleaned.is_complete,
            least_share,
        )
    return {"rows": len(cleaned.books)} | asdict(result)


def _preview(key: str, database: BooksDatabase) -> dg.MetadataValue:
    with database.begin() as connection:
        rows = connection.execute(select_page(select_books(category=key), None, PREVIEW_ROWS)).mappings().all()
    return preview([{name: row[name] for name in _SHOWN} for row in rows])
