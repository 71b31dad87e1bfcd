"""Table `books` with its history -> one HTML page about its content, at the API's /report."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from bookclub_platform.assets._columns import of_names
from bookclub_platform.assets._common import DATA_SCIENCE, preview
from bookclub_platform.assets._plots import picture
from bookclub_platform.core import explore
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.tables import select_data_version
from bookclub_platform.models import Tfidf
from bookclub_platform.report import Facts, drawn, figures, render
from bookclub_platform.resources import Api, BooksDatabase, DataFolder

_EXAMPLES = 8
_CHUNK = 10_000
_COLUMNS = {
    "category": "str",
    "category_name": "str",
    "books": "int",
    "books_in_stock": "int",
    "median_price": "float | None",
    "mean_rating": "float | None",
    "without_description": "int",
}

# After any run, but only once a load of many categories is complete. Not `eager`, which requires that every category
# was loaded once.
_AFTER_EACH_LOAD = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("after each load of books")


@dg.asset(
    name="catalogue_report",
    description="What is in the catalogue, as one HTML page: the last crawl, missing values, distributions, price "
    "against rating and whether it means anything, categories, texts, price history, refused pages.",
    deps=["books"],
    group_name="catalogue",
    owners=[DATA_SCIENCE],
    kinds={"python", "html", "report"},
    code_version="1",
    automation_condition=_AFTER_EACH_LOAD,
    metadata=of_names(_COLUMNS),
)
def catalogue_report(
    files: DataFolder,
    database: BooksDatabase,
    api: Api,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    started = time.perf_counter()
    with database.begin() as connection:
        facts = read_facts(connection, api.url)
    path = files.write_report(render(facts))
    progress.advance("report", str(path))
    return dg.MaterializeResult(metadata=_metadata(facts, path, api) | {"seconds": _since(started)})


def read_facts(connection: sa.Connection, api_url: str) -> Facts:
    """Everything that the page needs, from one snapshot. Call it at the beginning of a transaction."""
    connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))

    def rows(statement: sa.Select[Any]) -> list[dict[str, Any]]:
        return [row._asdict() for row in connection.execute(statement)]

    currencies = {row["currency"]: row["books"] for row in rows(explore.select_currencies())}
    currency = next(iter(currencies), "GBP")
    price, rating, stock, characters = numbers(connection, currency)
    return Facts(
        made_at=datetime.now(UTC),
        data_version=str(connection.execute(select_data_version()).scalar_one()),
        api_url=api_url,
        currency=currency,
        other_currencies={name: books for name, books in currencies.items() if name != currency},
        overview=rows(explore.select_overview())[0],
        missing=rows(explore.select_missing())[0],
        price=price,
        rating=rating,
        stock=stock,
        characters=characters,
        categories=rows(explore.select_category_figures(currency)),
        placeholders=Tfidf().unknown_categories,
        longest=rows(explore.select_by_text(is_longest=True, limit=_EXAMPLES)),
        shortest=rows(explore.select_by_text(is_longest=False, limit=_EXAMPLES)),
        same_titles=rows(explore.select_repeated("title", _EXAMPLES)),
        same_descriptions=rows(explore.select_repeated("description", _EXAMPLES)),
        price_days=rows(explore.select_price_days(currency)),
        price_moves=rows(explore.select_price_moves(_EXAMPLES)),
        last_crawls=rows(explore.select_last_crawls()),
        rejects=rows(explore.select_rejects_by_rule()),
        newest_rejects=rows(explore.select_newest_rejects(3 * _EXAMPLES)),
    )


def numbers(connection: sa.Connection, currency: str) -> list[figures.Numbers]:
    """Price, rating, stock and characters of every book, in chunks: a million rows of Python objects are a gigabyte."""
    statement = explore.select_numbers(currency).execution_options(yield_per=_CHUNK)
    found = [figures.columns(chunk, 4) for chunk in connection.execute(statement).partitions()]
    return figures.joined(found, 4)


def _metadata(facts: Facts, path: Path, api: Api) -> dict[str, Any]:
    link = facts.price_and_rating
    return {
        "dagster/row_count": facts.overview["listed"],
        "report": dg.MetadataValue.url(api.report),
        "price_against_rating": link.sentence,
        "price_rating_spearman": link.rho if link.verdict != "unknown" else "unknown",
        "price_rating_interval": f"{link.low:.3f} to {link.high:.3f}, n = {link.n}",
        "file": dg.MetadataValue.path(path),
        "data_version": facts.data_version,
        "delisted": facts.overview["delisted"],
        "rejected": facts.overview["rejected"],
        **{name: picture(shown, name.replace("_", " ")) for name, shown in drawn(facts).items()},
        "preview": preview([{name: row[name] for name in _COLUMNS} for row in facts.categories]),
    }


def _since(started: float) -> float:
    return round(time.perf_counter() - started, 3)
