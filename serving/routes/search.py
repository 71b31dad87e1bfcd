"""Books by free text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from serving.access.rate_limit import charge
from serving.answers.versions import CONDITIONAL, TheFreshness
from serving.dependencies import TheCatalogue, TheChampion
from serving.http import problems
from serving.recommender import finder
from serving.schemas.books import ModelRef, SearchPage
from serving.schemas.cursor import encode_place, mark_of
from serving.schemas.requests import SearchQuery

UNAVAILABLE = ("database-unavailable", "no-model", "no-search", "busy")

router = APIRouter(tags=["Books"], responses=problems.responses("invalid-request", *UNAVAILABLE))


@router.get(
    "/books/search",
    summary="Search books",
    responses=problems.responses("other-order", "other-filters") | CONDITIONAL,
)
async def search_books(
    query: Annotated[SearchQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampion,
    fresh: TheFreshness,
    request: Request,
) -> SearchPage:
    """Listed books that match `q`, best match first. One word of `q` is enough for a match, so `total` counts weak
    matches, too; books with more of the words, and rarer ones, come first. There are no operators: quotes, `-`, `OR`
    and `title:` mean nothing. Title words count more than words of the description, rare words more than frequent ones,
    and words in the order of the query more than scattered ones. Typos and other word forms match as well, and the last
    word may be incomplete. A UPC finds its book, in upper or lower case. `sort` changes the order of all matches, weak
    ones included. `facets=true` adds counts for filter menus. For the next page, send the same request with `cursor`
    set to `next`. After the books have changed, a page may repeat a book of the page before. The request counts as one
    for each 200 characters of `q`, and one more with facets."""
    charge(request, query.units)
    async with catalogue.snapshot(catalogue.searches) as snapshot:
        fresh.check(snapshot, champion, has_lists=True)
        finding = await finder.search(champion, snapshot, query)
    end = query.page.stop
    return SearchPage(
        items=finding.items,
        next=encode_place(query.sort, end, mark_of(query.filters(), query.q)) if end < finding.total else None,
        total=finding.total,
        facets=finding.facets,
        model=ModelRef.model_validate(champion.version),
        data_version=snapshot.data_version,
    )
