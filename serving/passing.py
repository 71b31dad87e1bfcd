"""Columns of the listed books + filters -> which of them pass, as Postgres would say it (core/browse.py).

passing(stock, Filters(max_price=Decimal(20)))      (n,) by row of `stock`
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.browse import Filters
from bookclub_platform.core.stock import Stock, fingerprint


def passing(stock: Stock, filters: Filters) -> NDArray[np.bool_]:
    """All but `source`, which the columns do not tell."""
    passes = np.ones(len(stock.ids), dtype=np.bool_)
    if filters.category is not None:
        passes &= stock.category == fingerprint(filters.category)
    if filters.min_price is not None:
        passes &= stock.price >= float(filters.min_price)
    if filters.max_price is not None:
        passes &= stock.price <= float(filters.max_price)
    if filters.min_rating is not None:
        passes &= stock.rating >= filters.min_rating
    if filters.in_stock is not None:
        passes &= stock.in_stock == filters.in_stock
    return passes
