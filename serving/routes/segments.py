"""What the catalogue is about, across the shop's own categories."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from bookclub_platform.core.browse import Filters, Position
from bookclub_platform.core.tables import select_listed
from serving.answers.versions import CONDITIONAL, TheFreshness
from serving.dependencies import TheCatalogue, TheChampion
from serving.http import problems
from serving.recommender import segments
from serving.schemas import cursor
from serving.schemas.books import Book, ModelRef
from serving.schemas.requests import SegmentQuery
from serving.schemas.segments import SEGMENT_ID, SegmentPage, Segments

router = APIRouter(
    prefix="/segments",
    tags=["Books"],
    responses=problems.responses("no-segments", "database-unavailable", "no-model") | CONDITIONAL,
)

SegmentId = Annotated[
    str, Path(pattern=SEGMENT_ID, description="`id` of a segment, from GET /segments.", examples=["3-1"])
]


@router.get("", summary="List segments")
async def list_segments(catalogue: TheCatalogue, champion: TheChampion, fresh: TheFreshness) -> Segments:
    """Groups of books about similar things, across all categories, for themed shelves and campaigns. The model in use
    has learned them: a new model has other segments with other ids. Books added since the training are included. 404 if
    the model has no segments."""
    async with catalogue.snapshot() as snapshot:
        fresh.check(snapshot, champion, has_lists=True)
        return await segments.find(champion, snapshot)


@router.get(
    "/{segment_id}",
    summary="List the books of a segment",
    responses=problems.responses("unknown-segment", "other-model", "no-segments", "other-filters", "invalid-request"),
)
async def get_segment(
    segment_id: SegmentId,
    query: Annotated[SegmentQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampion,
    fresh: TheFreshness,
) -> SegmentPage:
    """Its listed books, in order of `id`. For the next page, send the same request with `cursor` set to `next`, until
    `next` is null. 404 after the model has changed; GET /segments lists the new segments."""
    segment, ids = segments.books_of(champion, segment_id, query.in_stock)
    place, _, mark = (query.cursor or "0").partition("-")
    filters = Filters(in_stock=query.in_stock)
    if not cursor.is_of(mark, filters, segment_id):
        raise problems.OtherFilters()
    after = [book_id for book_id in ids if book_id > int(place)]
    chosen = after[: query.limit]
    async with catalogue.snapshot() as snapshot:
        fresh.check(snapshot, champion, has_lists=True)
        rows = await snapshot.rows(select_listed(chosen))
    items = sorted((Book.model_validate(row) for row in rows), key=lambda book: book.id)
    return SegmentPage(
        segment=segment,
        items=items,
        next=cursor.encode("id", Position(chosen[-1]), cursor.mark_of(filters, segment_id))
        if len(after) > query.limit
        else None,
        total=len(ids),
        model=ModelRef.model_validate(champion.version),
        data_version=snapshot.data_version,
    )
