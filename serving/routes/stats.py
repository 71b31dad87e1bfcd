"""The catalogue in figures, over all and by category."""

from __future__ import annotations

from fastapi import APIRouter

from bookclub_platform.core import stats
from bookclub_platform.core.explore import select_currencies
from serving import problems
from serving.catalogue import Snapshot
from serving.dependencies import TheCatalogue, TheKeeper
from serving.statistics import CategoryFigures, CategoryStatistics, CurrencyCount, Overview, figures, price_bands
from serving.versions import CONDITIONAL, TheFreshness

router = APIRouter(prefix="/stats", tags=["Books"], responses=problems.responses("database-unavailable") | CONDITIONAL)

_NO_CURRENCY = "XXX"  # ISO 4217's own word for it: there is no book yet


@router.get("/overview", summary="The catalogue in figures")
async def get_overview(catalogue: TheCatalogue, keeper: TheKeeper, fresh: TheFreshness) -> Overview:
    """Counts, prices, stars and stock of all listed books."""
    async with catalogue.snapshot(is_patient=True) as snapshot:
        fresh.check(snapshot, keeper.current)
        (counts,) = await snapshot.remembered("counts", stats.select_counts())
        currencies = await snapshot.remembered("currencies", select_currencies())
        currency = currencies[0].currency if currencies else _NO_CURRENCY
        (row,) = await snapshot.remembered("figures", stats.select_figures(currency))
        bands = await snapshot.remembered("bands", stats.select_price_bands(currency))
    return Overview(
        **figures(row, currency),
        delisted=counts.delisted,
        categories=counts.categories,
        sources=counts.sources or [],
        currencies=[CurrencyCount.model_validate(row) for row in currencies],
        price_bands=price_bands(bands),
        first_seen_at=counts.first_seen_at,
        updated_at=counts.updated_at,
        data_version=snapshot.data_version,
    )


@router.get("/categories", summary="Each category in figures")
async def get_categories(catalogue: TheCatalogue, keeper: TheKeeper, fresh: TheFreshness) -> CategoryStatistics:
    """Counts, prices, stars and stock of each category with a listed book, by name."""
    async with catalogue.snapshot(is_patient=True) as snapshot:
        fresh.check(snapshot, keeper.current)
        currency = await _commonest(snapshot)
        rows = await snapshot.remembered("by category", stats.select_figures_by_category(currency))
    items = [
        CategoryFigures(category=row.category, category_name=row.category_name, **figures(row, currency))
        for row in rows
    ]
    return CategoryStatistics(items=items, total=len(items), data_version=snapshot.data_version)


async def _commonest(snapshot: Snapshot) -> str:
    rows = await snapshot.remembered("currencies", select_currencies())
    return rows[0].currency if rows else _NO_CURRENCY
