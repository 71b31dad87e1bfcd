"""Lists of books with addresses of their own, which must be known before `/books/{book_id}`: this file comes before
books.py in the folder, and so do its routes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response, Security
from starlette.responses import StreamingResponse

from bookclub_platform.core.feedback import select_popular
from serving import problems
from serving.dependencies import TheCatalogue, TheExports
from serving.exports import MEDIA_TYPES
from serving.guard import guard
from serving.questions import ExportQuery, PopularQuery
from serving.schemas import Book, PopularBook, PopularBooks
from serving.versions import TheFreshness

router = APIRouter(prefix="/books", tags=["Books"], responses=problems.responses(503))

_EXPORTED = {kind: {"schema": {"type": "string"}} for kind in MEDIA_TYPES.values()}


@router.get(
    "/export",
    summary="All books at once",
    response_class=StreamingResponse,
    dependencies=[Security(guard, scopes=["export"])],
    responses=problems.responses(409, 422, 501) | {200: {"description": "The books.", "content": _EXPORTED}},
)
async def export_books(
    query: Annotated[ExportQuery, Query()], exports: TheExports, fresh: TheFreshness, response: Response
) -> StreamingResponse:
    """Every listed book, in order of `id`, all of one state of the catalogue, however long it takes to send. Asked
    with the ETag of the last time it answers 304 until something changed. Should it break off: cut what came after the
    last whole book, and ask for the rest with `after` and `data_version` (csv then comes without its header; a rest in
    parquet is a file of its own)."""
    export = await exports.open(query.format, query.with_delisted, query.after)
    try:
        fresh.check(export.state, None)
        if query.data_version not in {None, int(export.state.data_version)}:
            raise problems.Problem(
                409,
                "data-moved-on",
                f"The books are of data version {export.state.data_version} now, not of {query.data_version}. Begin "
                "the export anew.",
            )
        return export.response(response.headers)
    except BaseException:
        await export.close()
        raise


@router.get("/popular", summary="What readers want", responses=problems.responses(404, 422))
async def list_popular(
    query: Annotated[PopularQuery, Query()], catalogue: TheCatalogue, response: Response
) -> PopularBooks:
    """The listed books that were most often clicked, liked or swapped in the last 30 days, by what POST /feedback was
    told; 404 while it was told nothing of the kind."""
    async with catalogue.snapshot() as snapshot:
        rows = await snapshot.rows(select_popular(query.limit))
    if not rows:
        raise problems.Problem(
            404, "no-feedback", "Nobody has clicked, liked or swapped a book in the last 30 days, as far as /feedback."
        )
    response.headers["Cache-Control"] = "public, max-age=60"
    items = [PopularBook(book=Book.model_validate(row), interest=row.interest) for row in rows]
    return PopularBooks(items=items, data_version=snapshot.data_version)
