"""Snapshot + filters and an order -> a page of books, the cursor of the next one, and the total on all pages.

page = await page_of(snapshot, stock, Filters(category="travel"), "price", after=None, limit=20)
page.books, page.next, page.total
"""

from __future__ import annotations

from typing import NamedTuple

from bookclub_platform.core.browse import Filters, Position, Sort, select_sorted
from bookclub_platform.core.stock import Stock
from serving.counting import counts
from serving.database.catalogue import Snapshot
from serving.schemas import cursor
from serving.schemas.books import Book


class Page(NamedTuple):
    """`next`: the cursor of the next page; None if there is none."""

    books: list[Book]
    next: str | None
    total: int


async def page_of(
    snapshot: Snapshot, stock: Stock | None, filters: Filters, sort: Sort, after: Position | None, limit: int
) -> Page:
    """`stock`: the books of the snapshot's state, if they are in memory (counts.py)."""
    rows = await snapshot.rows(select_sorted(filters, sort, after, limit + 1))
    total = await counts.total(snapshot, stock, filters)
    books = [Book.model_validate(row) for row in rows[:limit]]
    last = rows[limit - 1] if len(rows) > limit else None
    following = last and cursor.encode(sort, Position(last.id, last.sort_key), cursor.mark_of(filters))
    return Page(books, following, total)
