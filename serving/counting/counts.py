"""Snapshot + the books in memory, if they have its state -> counts and figures over all books; else Postgres counts.

    stock = stock_of(champion, snapshot.state)
    await total(snapshot, stock, filters); await facets(snapshot, stock, filters); await categories(snapshot, stock)
    await overview(snapshot, stock); await by_category(snapshot, stock)

Both give the same result, to the last digit. Counting runs off the event loop; results except in-memory totals and
facets are cached for each state of the books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from bookclub_platform.core import stats
from bookclub_platform.core.browse import Filters, select_source_range, select_total
from bookclub_platform.core.explore import select_currencies
from bookclub_platform.core.stats import CategoryCount, CategoryTally, Summary, Tally
from bookclub_platform.core.stock import Stock, select_shelf_rows
from bookclub_platform.core.tables import select_categories
from serving.books.facets import facets_of
from serving.counting import stock_counts
from serving.counting.page_counts import facets_in, total_of
from serving.counting.stock_counts import Shelves
from serving.database.catalogue import LARGE_FROM, Snapshot, State
from serving.process import malloc
from serving.recommender.champion import Champion
from serving.schemas.books import Facets

_T = TypeVar("_T")
_Counting = Callable[[Stock, Shelves, Sequence[sa.Row[Any]]], _T]


def stock_of(champion: Champion | None, state: State) -> Stock | None:
    """The books of exactly that state, if they are in memory."""
    lineup = champion.lineup if champion is not None else None
    return lineup.stock if lineup is not None and lineup.state == state else None


def must_ask(champion: Champion | None) -> bool:
    """Whether Postgres has to count, because no books are in memory yet; of a million books that takes seconds."""
    return champion is None or champion.lineup.stock is None


async def total(snapshot: Snapshot, stock: Stock | None, filters: Filters) -> int:
    """How many books pass the filters."""
    in_memory = await _in_memory(snapshot, filters)
    if stock is not None and in_memory is not None:
        return await asyncio.to_thread(total_of, stock, in_memory)
    ((found,),) = await snapshot.remembered(("total", filters), select_total(filters))
    return int(found)


async def facets(snapshot: Snapshot, stock: Stock | None, filters: Filters) -> Facets:
    """How many books each further choice would leave."""
    in_memory = await _in_memory(snapshot, filters)
    if stock is not None and in_memory is not None:
        counted = await categories(snapshot, stock)
        return await asyncio.to_thread(facets_in, stock, in_memory, counted)
    return await facets_of(snapshot, filters)


async def _in_memory(snapshot: Snapshot, filters: Filters) -> Filters | None:
    """The filters without `source`, which the books in memory do not have, if it is the only source; None if there are
    others, so that Postgres has to count."""
    if filters.source is None:
        return filters
    (ends,) = await snapshot.remembered("sources", select_source_range())
    return filters._replace(source=None) if ends.first == ends.last == filters.source else None


async def categories(snapshot: Snapshot, stock: Stock | None) -> Sequence[CategoryCount]:
    """Every category with a listed book, by name."""

    async def count() -> list[CategoryCount]:
        if (counted := await _counted(snapshot, stock, stock_counts.category_counts)) is not None:
            return counted
        return [CategoryCount._make(row) for row in await snapshot.rows(select_categories())]

    return await snapshot.once("categories", count)


async def overview(snapshot: Snapshot, stock: Stock | None) -> Summary:
    """All listed books in figures."""

    async def count() -> Summary:
        if (counted := await _counted(snapshot, stock, stock_counts.summary)) is not None:
            return counted
        currencies = await _currencies(snapshot)
        currency = stats.commonest(currencies)
        (tally,) = await snapshot.rows(stats.select_tally(currency))
        bands = await snapshot.rows(stats.select_price_bands(currency))
        (counts,) = await snapshot.rows(stats.select_counts())
        return Summary(
            currencies,
            Tally._make(tally),
            [(row.band, row.books) for row in bands],
            counts.delisted,
            counts.categories,
            counts.sources or [],
            counts.first_seen_at,
            counts.updated_at,
        )

    return await snapshot.once("overview", count)


async def by_category(snapshot: Snapshot, stock: Stock | None) -> Sequence[CategoryTally]:
    """Each category with a listed book in figures, by name."""

    async def count() -> list[CategoryTally]:
        if (counted := await _counted(snapshot, stock, stock_counts.category_tallies)) is not None:
            return counted
        currency = stats.commonest(await _currencies(snapshot))
        rows = await snapshot.rows(stats.select_tally_by_category(currency))
        return [CategoryTally(row.category, row.category_name, currency, Tally._make(row[2:])) for row in rows]

    return await snapshot.once("by category", count)


async def _counted(snapshot: Snapshot, stock: Stock | None, count: _Counting[_T]) -> _T | None:
    """None: Postgres has to count."""
    if stock is None or stock.whole is None:
        return None
    shelves = await asyncio.to_thread(stock_counts.shelves_of, stock)
    rows = await snapshot.rows(select_shelf_rows(shelves.ids))
    if len(rows) < len(shelves.ids):  # a row was deleted, which no load does, so the data version does not show it
        return None
    return await asyncio.to_thread(_tidily, count, stock, shelves, rows)


def _tidily(count: _Counting[_T], stock: Stock, shelves: Shelves, rows: Sequence[sa.Row[Any]]) -> _T:
    counted = count(stock, shelves, rows)
    if len(stock.ids) >= LARGE_FROM:
        malloc.trim()
    return counted


async def _currencies(snapshot: Snapshot) -> list[tuple[str, int]]:
    rows = await snapshot.remembered("currencies", select_currencies())
    return [(row.currency, row.books) for row in rows]
