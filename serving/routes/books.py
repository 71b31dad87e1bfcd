"""The catalogue: pages of books, one book, the categories."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from bookclub_platform.core.tables import select_book, select_books, select_categories, select_count, select_page
from serving import cursor, problems
from serving.dependencies import TheCatalogue, TheKeeper
from serving.questions import BookId, BookQuery
from serving.schemas import Book, BookPage, Categories, Category
from serving.versions import name_versions

router = APIRouter(tags=["Books"], responses=problems.responses(503))


@router.get("/books", summary="Page through the books", responses=problems.responses(422))
async def list_books(
    query: Annotated[BookQuery, Query()], catalogue: TheCatalogue, keeper: TheKeeper, response: Response
) -> BookPage:
    """Listed books in order of `id`. For the next page ask again with `cursor` set to `next`, until that is null.
    Books that come or go between two pages neither repeat nor hide another."""
    chosen = select_books(query.category, query.in_stock)
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_page(chosen, query.cursor, query.limit + 1))
        total = await snapshot.scalar(select_count(chosen))
    name_versions(response, keeper.current, snapshot)
    items = [Book.model_validate(row) for row in rows[: query.limit]]
    following = cursor.encode(items[-1].id) if len(rows) > query.limit else None
    return BookPage(items=items, next=following, total=total, data_version=snapshot.data_version)


@router.get("/books/{book_id}", summary="One book", responses=problems.responses(404, 422))
async def get_book(
    book_id: Annotated[BookId, Path()], catalogue: TheCatalogue, keeper: TheKeeper, response: Response
) -> Book:
    """The book with that `id`, also when the shop no longer lists it (`delisted_at` then says since when)."""
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_book(book_id))
    if not rows:
        raise problems.UnknownBook(book_id)
    name_versions(response, keeper.current, snapshot)
    return Book.model_validate(rows[0])


@router.get("/categories", summary="All categories")
async def list_categories(catalogue: TheCatalogue, keeper: TheKeeper, response: Response) -> Categories:
    """Every category with a listed book, by name, with its counts."""
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_categories())
    name_versions(response, keeper.current, snapshot)
    items = [Category.model_validate(row) for row in rows]
    return Categories(items=items, total=len(items), data_version=snapshot.data_version)
