"""Columns of the listed books + filters -> which books pass, with the same result as Postgres (core/browse.py).

passing(stock, Filters(max_price=Decimal(20)))      (n,) by row of `stock`
passes_book(book, filters)                           the same of one book
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.browse import Filters
from bookclub_platform.core.stock import Stock, fingerprint
from serving.schemas.books import Book


def passing(stock: Stock, filters: Filters) -> NDArray[np.bool_]:
    """Applies all filters except `source`, which is not among the columns."""
    passes = np.ones(len(stock.ids), dtype=np.bool_) if filters.in_stock is None else stock.in_stock == filters.in_stock
    if filters.category is not None:
        passes &= stock.category == fingerprint(filters.category)
    if filters.min_price is not None:
        passes &= stock.price >= float(filters.min_price)
    if filters.max_price is not None:
        passes &= stock.price <= float(filters.max_price)
    if filters.min_rating is not None:
        passes &= stock.rating >= filters.min_rating
    return passes


def passes_book(book: Book, filters: Filters) -> bool:
    """Applies all filters except `source`, as `passing` does."""
    return (
        filters.in_stock in {None, book.in_stock}
        and filters.category in {None, book.category}
        and (filters.min_price is None or book.price >= float(filters.min_price))
        and (filters.max_price is None or book.price <= float(filters.max_price))
        and (filters.min_rating is None or (book.rating or 0) >= filters.min_rating)
    )
