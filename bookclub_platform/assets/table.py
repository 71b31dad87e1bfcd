"""Cleaned rows of every source -> table `bookclub.books`: one transaction per source and category."""

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict

import dagster as dg
import sqlalchemy as sa

from bookclub_platform.assets._checks import Events, Findings
from bookclub_platform.assets._columns import of_table
from bookclub_platform.assets._common import (
    ALL_IN_ONE_RUN,
    DATA_ENGINEERING,
    PREVIEW_ROWS,
    categories,
    preview,
    whole_key,
)
from bookclub_platform.assets._load_checks import LOAD_CHECKS, Load, check_loads
from bookclub_platform.assets._plots import picture
from bookclub_platform.core import explore
from bookclub_platform.core.book import Book
from bookclub_platform.core.categories import is_retired
from bookclub_platform.core.cleaned import CleanedCategory
from bookclub_platform.core.drift import measure_drift, note_before
from bookclub_platform.core.loads import LEAST_SHARE, LoadResult, load_category
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.tables import books as books_table
from bookclub_platform.core.tables import select_books
from bookclub_platform.report import figures, pictures
from bookclub_platform.resources import Api, BooksDatabase, DataFolder
from bookclub_platform.sources import Source

_SHOWN = ["id", "source", "title", "price", "rating", "stock", "updated_at"]


class LoadConfig(dg.Config):
    """`least_share`: a crawl that finds less than this share of a category's books is not loaded. Set it
    to 0 in the launchpad once a person has looked, and the books are really gone."""

    least_share: float = LEAST_SHARE


def books_asset(sources: Sequence[Source]) -> dg.AssetsDefinition:
    """The asset `books` over the given sources. A source without cleaned rows of a category blocks no other."""

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
        metadata=of_table(books_table),
        check_specs=[check.spec(["books"]) for check in LOAD_CHECKS],
    )
    def books(
        context: dg.AssetExecutionContext,
        config: LoadConfig,
        files: DataFolder,
        database: BooksDatabase,
        api: Api,
        progress: dg.ResourceParam[Progress],
    ) -> Events:
        findings = Findings(LOAD_CHECKS)
        for key in context.partition_keys:
            started = time.perf_counter()
            of_key = [source for source in sources if _is_of(source, key)]
            loads = {source.name: _load(source, key, files, database, config.least_share) for source in of_key}
            chosen = _rows_of(of_key, key)
            check_loads(findings, key, loads)
            metadata = {
                "dagster/row_count": sum(load.rows for load in loads.values() if load),
                "loads": {name: load.figures if load else {} for name, load in loads.items()},
                "api": dg.MetadataValue.url(api.category(key) if _has_categories(of_key) else api.books),
                **_pictures(key, chosen, database),
                "preview": _preview(chosen, database),
                "seconds": round(time.perf_counter() - started, 3),
            }
            context.add_asset_metadata(metadata, partition_key=key)
            progress.advance("load", key)
        yield from findings.events(context)

    return books


def _is_of(source: Source, key: str) -> bool:
    return source.has_categories or key == whole_key(source.name)


def _has_categories(sources: Sequence[Source]) -> bool:
    return any(source.has_categories for source in sources)


def _rows_of(sources: Sequence[Source], key: str) -> sa.ColumnElement[bool]:
    """Which rows the partition `key` stands for: a category, or all that its `sources` without categories bring."""
    is_of_whole = books_table.c.source.in_([source.name for source in sources if not source.has_categories])
    return sa.or_(is_of_whole, books_table.c.category == key) if _has_categories(sources) else is_of_whole


def _load(source: Source, key: str, files: DataFolder, database: BooksDatabase, least_share: float) -> Load | None:
    cleaned = files.read_cleaned(source.name, key)
    if cleaned is None:
        return None
    with database.begin() as connection:
        if is_retired(connection, source.name, key):
            return Load(0, {"rows": 0, "is_retired": True})
        category = key if source.has_categories else None
        listed = note_before(connection, source.name, category)
        with connection.begin_nested() as loading:
            result = _load_rows(connection, source.name, category, cleaned, cleaned.books, least_share)
            if result.is_shrunken:
                loading.rollback()
        drift = measure_drift(connection, cleaned.crawl_id)
        if result.is_shrunken:  # load only its rejected rows
            result = _load_rows(connection, source.name, category, cleaned, [], least_share)
    found = len(cleaned.books)
    rows = 0 if result.is_shrunken else found
    return Load(rows, {"rows": rows} | asdict(result), drift, listed, found, result.is_shrunken)


def _load_rows(
    connection: sa.Connection,
    source: str,
    category: str | None,
    cleaned: CleanedCategory,
    rows: Collection[Book],
    least_share: float,
) -> LoadResult:
    return load_category(
        connection,
        source,
        category,
        cleaned.crawl_id,
        rows,
        cleaned.rejected,
        cleaned.crawled_at,
        cleaned.is_complete,
        least_share,
    )


def _preview(chosen: sa.ColumnElement[bool], database: BooksDatabase) -> dg.MetadataValue:
    with database.begin() as connection:
        rows = connection.execute(select_books().where(chosen).limit(PREVIEW_ROWS)).mappings().all()
    return preview([{name: row[name] for name in _SHOWN} for row in rows])


def _pictures(key: str, chosen: sa.ColumnElement[bool], database: BooksDatabase) -> dict[str, dg.MetadataValue]:
    """Plots of the partition's current content; none if it is empty."""
    with database.begin() as connection:
        commonest = connection.execute(explore.select_currencies(chosen)).first()
        if commonest is None:
            return {}
        currency = commonest.currency
        rows = [tuple(row) for row in connection.execute(explore.select_numbers(currency, chosen))]
        days = [row._asdict() for row in connection.execute(explore.select_price_days(currency, chosen))]
    price, rating, stock, _ = figures.columns(rows, 4)
    drawn = {
        "prices": pictures.prices(price, currency),
        "stars": pictures.stars(rating),
        "stock": pictures.stock(stock),
        "price_history": pictures.price_history(days, currency),
    }
    return {name: picture(shown, f"{name.replace('_', ' ')} of {key}") for name, shown in drawn.items()}
