"""The catalogue: pages of books, one book and its history, the categories."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Query, Request

from bookclub_platform.core.tables import select_book, select_history
from serving.access.rate_limit import charge
from serving.answers.versions import CONDITIONAL, TheFreshness
from serving.counting import counts
from serving.counting.book_pages import page_of
from serving.database.catalogue import Snapshot
from serving.dependencies import TheCatalogue, TheChampionIfAny
from serving.http import problems
from serving.http.digits import BookId
from serving.schemas import cursor
from serving.schemas.books import Book, BookPage, BookState, Categories, Category, History
from serving.schemas.requests import BookQuery

router = APIRouter(tags=["Books"], responses=problems.responses("database-unavailable"))


@router.get(
    "/books",
    summary="List books",
    responses=problems.responses("other-order", "other-filters", "invalid-request", "database-unavailable", "busy")
    | CONDITIONAL,
)
async def list_books(
    query: Annotated[BookQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampionIfAny,
    fresh: TheFreshness,
    request: Request,
) -> BookPage:
    """Listed books that pass all filters. For the next page, send the same request with `cursor` set to `next`, until
    `next` is null. Pages stay consistent when books are added or removed in between: no book repeats, none is skipped.
    `facets=true` adds counts for filter menus, and the request counts as two."""
    charge(request, 1 + query.facets)
    page: cursor.DecodedCursor | None = query.cursor
    filters = query.filters()
    after = page.after if page is not None else None
    if page is not None and page.sort != query.sort:
        raise problems.OtherOrder(page.sort)
    if page is not None and not cursor.is_of(page.mark, filters):
        raise problems.OtherFilters()
    slow = catalogue.facets if query.facets else catalogue.figures if counts.must_ask(champion) else None
    async with catalogue.snapshot(slow) as snapshot:
        fresh.check(snapshot, champion)
        stock = counts.stock_of(champion, snapshot.state)
        found = await page_of(snapshot, stock, filters, query.sort, after, query.limit)
        facets = await counts.facets(snapshot, stock, filters) if query.facets else None
    return BookPage(
        items=found.books, next=found.next, total=found.total, facets=facets, data_version=snapshot.data_version
    )


@router.get(
    "/books/{book_id}",
    summary="Get a book",
    responses=problems.responses("unknown-book", "invalid-request") | CONDITIONAL,
)
async def get_book(
    book_id: Annotated[BookId, Path()], catalogue: TheCatalogue, champion: TheChampionIfAny, fresh: TheFreshness
) -> Book:
    """The book with this `id`, also if it is delisted (see `delisted_at`)."""
    async with catalogue.snapshot() as snapshot:
        row = await _known(snapshot, book_id)
        fresh.check(snapshot, champion)
    return Book.model_validate(row)


@router.get(
    "/books/{book_id}/history",
    summary="Get the history of a book",
    responses=problems.responses("unknown-book", "invalid-request") | CONDITIONAL,
)
async def get_history(
    book_id: Annotated[BookId, Path()], catalogue: TheCatalogue, champion: TheChampionIfAny, fresh: TheFreshness
) -> History:
    """Price, stars and stock of the book since it was first seen, with a new item for each change. Also for delisted
    books."""
    async with catalogue.snapshot() as snapshot:
        book = await _known(snapshot, book_id)
        rows = await snapshot.rows(select_history(book_id))
        # A crawl that is loaded late only adds to the past, and the data version stays the same.
        fresh.check(snapshot, champion, *(str(row.held_from) for row in rows))
    items = [BookState.model_validate(row) for row in rows]
    return History(book_id=book_id, currency=book.currency, items=items, data_version=snapshot.data_version)


@router.get(
    "/categories", summary="List categories", responses=problems.responses("database-unavailable", "busy") | CONDITIONAL
)
async def list_categories(catalogue: TheCatalogue, champion: TheChampionIfAny, fresh: TheFreshness) -> Categories:
    """All categories with a listed book, sorted by name, with counts."""
    async with catalogue.snapshot(catalogue.figures) as snapshot:
        fresh.check(snapshot, champion)
        rows = await counts.categories(snapshot, counts.stock_of(champion, snapshot.state))
    items = [Category.model_validate(row) for row in rows]
    return Categories(items=items, total=len(items), data_version=snapshot.data_version)


async def _known(snapshot: Snapshot, book_id: int) -> sa.Row[tuple[object, ...]]:
    rows = await snapshot.rows(select_book(book_id))
    if not rows:
        raise problems.UnknownBook(book_id)
    return rows[0]
