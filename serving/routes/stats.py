"""Statistics of the catalogue, in total and by category."""

from __future__ import annotations

from fastapi import APIRouter

from serving.answers.versions import CONDITIONAL, TheFreshness
from serving.counting import counts
from serving.dependencies import TheCatalogue, TheChampionIfAny
from serving.http import problems
from serving.schemas.statistics import (
    CategoryFigures,
    CategoryStatistics,
    CurrencyCount,
    Overview,
    figures,
    price_bands,
)

router = APIRouter(
    prefix="/stats", tags=["Books"], responses=problems.responses("database-unavailable", "busy") | CONDITIONAL
)


@router.get("/overview", summary="Statistics of the catalogue")
async def get_overview(catalogue: TheCatalogue, champion: TheChampionIfAny, fresh: TheFreshness) -> Overview:
    """Counts, prices, stars and stock of all listed books."""
    async with catalogue.snapshot(catalogue.figures) as snapshot:
        fresh.check(snapshot, champion)
        found = await counts.overview(snapshot, counts.stock_of(champion, snapshot.state))
    return Overview(
        **figures(found.tally, found.currency),
        delisted=found.delisted,
        categories=found.categories,
        sources=found.sources,
        currencies=[CurrencyCount(currency=currency, books=books) for currency, books in found.currencies],
        price_bands=price_bands(found.bands),
        first_seen_at=found.first_seen_at,
        updated_at=found.updated_at,
        data_version=snapshot.data_version,
    )


@router.get("/categories", summary="Statistics by category")
async def get_categories(
    catalogue: TheCatalogue, champion: TheChampionIfAny, fresh: TheFreshness
) -> CategoryStatistics:
    """Counts, prices, stars and stock of each category with a listed book, sorted by name."""
    async with catalogue.snapshot(catalogue.figures) as snapshot:
        fresh.check(snapshot, champion)
        found = await counts.by_category(snapshot, counts.stock_of(champion, snapshot.state))
    items = [
        CategoryFigures(category=one.category, category_name=one.category_name, **figures(one.tally, one.currency))
        for one in found
    ]
    return CategoryStatistics(items=items, total=len(items), data_version=snapshot.data_version)
