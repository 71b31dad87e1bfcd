"""The web catalogue, for readers: shelves of books, and each book with those most like it. What goes wrong is told in
a page, not in JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field, field_validator
from starlette.responses import HTMLResponse, RedirectResponse

from bookclub_platform.core.browse import Filters, Position, select_sorted, select_total
from bookclub_platform.core.tables import select_book, select_categories
from serving import cursor, finder, neighbours
from serving.catalogue import Catalogue, Snapshot
from serving.champion import ChampionKeeper
from serving.dependencies import TheCatalogue, TheKeeper
from serving.gate import charge
from serving.questions import BookId, PageQuery, SearchQuery, SearchText
from serving.schemas import Book, Recommendation
from serving.web.pages import page_for
from serving.web.route import WebRoute
from serving.web.shelf import Shelf

_LIKE_IT = 8
_PER_PAGE = 24


class _ShelfQuery(PageQuery):
    limit: int = _PER_PAGE
    q: SearchText | None = None
    start: int = Field(0, ge=0, le=finder.RANKED)

    @field_validator("category", "q", mode="before")
    @classmethod
    def _all_shelves(cls, chosen: str) -> str | None:
        """A form sends "" for the choice that is none."""
        return chosen or None


router = APIRouter(route_class=WebRoute, include_in_schema=False)


@router.get("/")
async def home() -> RedirectResponse:
    return RedirectResponse("catalogue")


@router.get("/catalogue")
async def show_shelves(
    request: Request, query: Annotated[_ShelfQuery, Query()], catalogue: TheCatalogue, keeper: TheKeeper
) -> HTMLResponse:
    if query.q:
        return await _show_found(request, query.q, query.start, catalogue, keeper)
    chosen = Filters(category=query.category, in_stock=query.in_stock)
    after = query.cursor.after if query.cursor is not None else None
    async with catalogue.snapshot() as snapshot:
        categories = await snapshot.rows(select_categories())
        rows = await snapshot.rows(select_sorted(chosen, "id", after, query.limit + 1))
        ((total,),) = await snapshot.remembered(("total", chosen), select_total(chosen))
    books = [Book.model_validate(row) for row in rows[: query.limit]]
    following = cursor.encode("id", Position(books[-1].id)) if len(rows) > query.limit else None
    name = next((row.category_name for row in categories if row.category == query.category), None)
    return _page(
        request,
        "shelves.html",
        categories=categories,
        books=books,
        query=query,
        name=name,
        total=total,
        following=following and request.url.include_query_params(cursor=following).query,
        first=query.cursor is None,
    )


async def _show_found(
    request: Request, asked: str, start: int, catalogue: Catalogue, keeper: ChampionKeeper
) -> HTMLResponse:
    query = SearchQuery(q=asked, limit=_PER_PAGE, cursor=str(start) if start else None)
    charge(request, query.units)
    async with catalogue.snapshot() as snapshot:
        finding = await finder.search(keeper.champion(), snapshot, query)
    end = start + _PER_PAGE
    return _page(
        request,
        "found.html",
        asked=asked,
        items=finding.items,
        total=finding.total,
        start=start,
        following=request.url.include_query_params(start=end).query if end < finding.total else None,
    )


@router.get("/catalogue/{book_id}")
async def show_book(
    request: Request, book_id: Annotated[BookId, Path()], catalogue: TheCatalogue, keeper: TheKeeper
) -> HTMLResponse:
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_book(book_id))
        if not rows:
            text = "We have never had a book of that number."
            return page_for(request, "fault.html", 404, title="No such book", text=text)
        like_it = await _like_it(keeper, snapshot, book_id)
    return _page(request, "book.html", book=Book.model_validate(rows[0]), like_it=like_it)


async def _like_it(keeper: ChampionKeeper, snapshot: Snapshot, book_id: int) -> list[Recommendation]:
    """None while there is no model, or for a book that it does not know yet: a page without them is still of use."""
    if keeper.current is None:
        return []
    lineup, choice = keeper.current.lineup, neighbours.Choice(limit=_LIKE_IT)
    asked = neighbours.probes(lineup, [book_id])
    ranking = await neighbours.rank(lineup, asked, choice)
    return (await neighbours.fill(snapshot, lineup, asked, ranking, choice)).get(book_id, [])


def _page(request: Request, template: str, **values: Any) -> HTMLResponse:
    """With what every page of books shows."""
    shelf: Shelf = request.state.shelf
    return page_for(request, template, **values, cover=shelf.address)
