"""Filters + snapshot -> how many books each further choice would leave, of all books or of those that a search found.

facets = await facets_of(snapshot, Filters(category="travel")); await facets_of(snapshot, filters, among=ids)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import sqlalchemy as sa

from bookclub_platform.core.browse import Facet, Filters, band_ends, select_facet
from serving.database.catalogue import Snapshot
from serving.schemas.books import CategoryCount, Facets, PriceCount, RatingCount, StockCount

_FACETS: tuple[Facet, ...] = get_args(Facet)


async def facets_of(snapshot: Snapshot, filters: Filters, among: Sequence[int] | None = None) -> Facets:
    """Counts over all books are cached for each state of the books. Those with `among` are not: each search differs."""
    rows: dict[Facet, Sequence[sa.Row[tuple[object, ...]]]] = {}
    for facet in _FACETS:
        counted = select_facet(filters, facet, among)
        is_lasting = among is None
        rows[facet] = await (snapshot.remembered((facet, filters), counted) if is_lasting else snapshot.rows(counted))
    bands = ((*band_ends(row.value), row.books) for row in rows["price"])
    return Facets(
        category=[
            CategoryCount(category=row.value, category_name=row.name, books=row.books) for row in rows["category"]
        ],
        rating=[RatingCount(rating=row.value, books=row.books) for row in rows["rating"]],
        price=[PriceCount(min_price=low, max_price=high, books=count) for low, high, count in bands],
        in_stock=[StockCount(in_stock=row.value, books=row.books) for row in rows["in_stock"]],
    )
