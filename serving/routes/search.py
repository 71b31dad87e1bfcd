"""Books by free text."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request

from serving import finder, problems
from serving.cursor import encode_place, mark_of
from serving.dependencies import TheCatalogue, TheChampion
from serving.gate import charge
from serving.questions import SearchQuery
from serving.schemas import ModelRef, SearchPage
from serving.versions import CONDITIONAL, TheFreshness

UNAVAILABLE = ("database-unavailable", "no-model", "no-search", "busy")

router = APIRouter(tags=["Books"], responses=problems.responses("invalid-request", *UNAVAILABLE))


@router.get(
    "/books/search",
    summary="Search for books",
    responses=problems.responses("other-order", "other-filters") | CONDITIONAL,
)
async def search_books(
    query: Annotated[SearchQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampion,
    fresh: TheFreshness,
    request: Request,
) -> SearchPage:
    """Listed books that fit `q`, the best first. Words of a title count most, then those of the description, rare ones
    more; words in the order of the question more than scattered ones. A word may be misspelt, be another form of the
    one in the text, and the last one may be begun alone. A UPC finds its book. `sort` puts all that was found into
    another order, weak finds too; with `facets=true` the page says how many of what was found each further choice
    would leave. For the next page ask the same again with `cursor` set to `next`. It counts as a request for each 200
    characters of `q`, and one more with facets."""
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
