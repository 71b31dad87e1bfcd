"""The web catalogue, for readers: shelves of books, and each book with the most similar ones. Errors are pages, not
JSON."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import ConfigDict, Field, field_validator
from starlette.responses import HTMLResponse, RedirectResponse

from bookclub_platform.core.browse import Filters, Sort
from bookclub_platform.core.tables import select_book
from serving.access.rate_limit import charge
from serving.counting import counts
from serving.counting.book_pages import page_of
from serving.database.catalogue import Catalogue, Snapshot
from serving.dependencies import TheCatalogue, TheChampionIfAny, TheKeeper
from serving.http.digits import MAX_ID, WHOLE, BookId, Stars
from serving.recommender import finder, neighbours
from serving.recommender.champion import Champion, ChampionKeeper
from serving.schemas import cursor
from serving.schemas.books import Book, Recommendation
from serving.schemas.requests import Choice, Limit, PageQuery, SearchQuery, SearchText
from serving.web.pages import page_for
from serving.web.route import WebRoute
from serving.web.shelf import Shelf

_LIKE_IT = 8
_PER_PAGE = 24


_ORDERS: dict[Sort, str] = {
    "id": "default order",
    "title": "by title",
    "price": "cheapest first",
    "-price": "most expensive first",
    "-rating": "most stars first",
    "-first_seen": "newest first",
}


class _ShelfQuery(PageQuery):
    model_config = ConfigDict(extra="ignore")  # links in mails and social networks get parameters of their own

    limit: Limit = _PER_PAGE
    q: SearchText | None = None
    start: Annotated[int, Field(ge=0, le=MAX_ID), WHOLE] = 0  # how many books the previous pages have shown
    sort: Sort = "id"
    min_rating: Stars | None = None

    @field_validator("category", "q", "min_rating", mode="before")
    @classmethod
    def _all_shelves(cls, chosen: str) -> str | None:
        """A form sends "" or blanks if nothing was chosen."""
        return chosen if chosen.strip() else None


router = APIRouter(route_class=WebRoute, include_in_schema=False)


@router.get("/")
async def home() -> RedirectResponse:
    return RedirectResponse("catalogue")


@router.get("/catalogue")
async def show_shelves(
    request: Request, query: Annotated[_ShelfQuery, Query()], catalogue: TheCatalogue, keeper: TheKeeper
) -> HTMLResponse:
    if query.q:
        return await _show_found(request, query.q, min(query.start, finder.RANKED), catalogue, keeper)
    chosen = Filters(category=query.category, in_stock=query.in_stock, min_rating=query.min_rating)
    page: cursor.DecodedCursor | None = query.cursor
    is_ours = page is not None and page.sort == query.sort and cursor.is_of(page.mark, chosen)
    after = page.after if page is not None and is_ours else None
    start = query.start if after is not None else 0
    async with catalogue.snapshot(catalogue.figures if counts.must_ask(keeper.current) else None) as snapshot:
        stock = counts.stock_of(keeper.current, snapshot.state)
        categories = await counts.categories(snapshot, stock)
        found = await page_of(snapshot, stock, chosen, query.sort, after, query.limit)
    name = next((row.category_name for row in categories if row.category == query.category), None)
    return _page(
        request,
        "shelves.html",
        categories=categories,
        books=found.books,
        query=query,
        name=name,
        total=found.total,
        orders=_ORDERS,
        start=start,
        following=found.next and _with(request, cursor=found.next, start=start + len(found.books)),
        first=_with(request, cursor=None, start=None),
    )


async def _show_found(
    request: Request, asked: str, start: int, catalogue: Catalogue, keeper: ChampionKeeper
) -> HTMLResponse:
    query = SearchQuery(q=asked, limit=_PER_PAGE, cursor=str(start) if start else None)
    charge(request, query.units)
    async with catalogue.snapshot(catalogue.searches) as snapshot:
        finding = await finder.search(keeper.champion(), snapshot, query)
    end = start + _PER_PAGE
    return _page(
        request,
        "found.html",
        asked=asked,
        items=finding.items,
        total=finding.total,
        start=start,
        following=_with(request, start=end) if end < finding.total else None,
        first=_with(request, start=None),
    )


@router.get("/catalogue/{book_id}")
async def show_book(
    request: Request, book_id: Annotated[BookId, Path()], catalogue: TheCatalogue, champion: TheChampionIfAny
) -> HTMLResponse:
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_book(book_id))
        if not rows:
            text = "There is no book with this number."
            return page_for(request, "fault.html", 404, title="No such book", text=text)
        like_it = await _like_it(champion, snapshot, book_id)
    return _page(request, "book.html", book=Book.model_validate(rows[0]), like_it=like_it)


@router.get("/catalogue/{path:path}")
async def no_such_page(request: Request) -> HTMLResponse:
    return page_for(request, "fault.html", 404, title="No such page", text="This address does not exist.")


async def _like_it(champion: Champion | None, snapshot: Snapshot, book_id: int) -> list[Recommendation]:
    """Empty while there is no model, or if it does not know the book yet: the page is still useful without a list."""
    if champion is None:
        return []
    lineup, choice = champion.lineup, Choice(limit=_LIKE_IT)
    asked = neighbours.probes(lineup, [book_id])
    ranking = await neighbours.rank(lineup, asked, choice)
    return (await neighbours.fill(snapshot, lineup, asked, ranking, choice)).get(book_id, [])


def _with(request: Request, **changes: Any) -> str:
    """The query of this page with `changes`; None removes a parameter."""
    gone = [name for name, value in changes.items() if value is None]
    url = request.url.remove_query_params(gone) if gone else request.url
    return url.include_query_params(**{name: value for name, value in changes.items() if value is not None}).query


def _page(request: Request, template: str, **values: Any) -> HTMLResponse:
    """`page_for` with what every page of books needs."""
    shelf: Shelf = request.state.shelf
    return page_for(request, template, **values, cover=shelf.address, site=str(request.base_url).rstrip("/"))
