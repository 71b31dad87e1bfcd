"""Lists of books with their own paths below /books. `routers()` of this package sorts them before `/books/{book_id}`,
which would match them otherwise."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, Security
from starlette.responses import StreamingResponse

from bookclub_platform.core.stock import Stock
from bookclub_platform.core.tables import select_listed
from serving.access.guard import guard
from serving.access.tokens import Claims
from serving.answers.versions import CONDITIONAL, TheFreshness, name_versions
from serving.counting import counts
from serving.database.exports import MEDIA_TYPES
from serving.dependencies import TheCatalogue, TheChampionIfAny, TheExports, ThePopular
from serving.http import problems
from serving.openapi.examples import example_of_model
from serving.schemas.books import Book
from serving.schemas.feedback import PopularBook, PopularBooks
from serving.schemas.requests import ExportQuery, PopularQuery

router = APIRouter(prefix="/books", tags=["Books"], responses=problems.responses("database-unavailable"))

_LINE = example_of_model(Book) | {"also_in": None}
# Client generators make one type of all three, and parquet read as text is corrupted, so it is bytes. Some generators
# treat any text/... as text whatever its schema says, and their code for both types fails, so csv has no schema.
_FILE = {"type": "string", "format": "binary"}
_EXPORTED: dict[str, dict[str, Any]] = {
    MEDIA_TYPES["ndjson"]: {"schema": _FILE, "example": f"{json.dumps(_LINE)}\n"},
    MEDIA_TYPES["csv"]: {"example": f"{','.join(_LINE)}\r\n"},
    MEDIA_TYPES["parquet"]: {"schema": _FILE},
}


@router.get(
    "/export",
    summary="Export all books",
    response_class=StreamingResponse,
    responses=problems.responses(
        "data-moved-on", "invalid-request", "export-under-way", "format-absent", "database-unavailable", "busy"
    )
    | CONDITIONAL
    | {200: {"description": "The books, streamed.", "content": _EXPORTED}},
)
async def export_books(
    query: Annotated[ExportQuery, Query()],
    claims: Annotated[Claims, Security(guard, scopes=["export"])],
    exports: TheExports,
    champion: TheChampionIfAny,
    fresh: TheFreshness,
    response: Response,
) -> StreamingResponse:
    """A consistent snapshot of all listed books, with all fields of `Book`, in order of `id`. The last field,
    `also_in`, lists the other categories that contain the book, with `category`, `category_name` and `last_seen_at`, or
    is null; in csv and parquet it is a string with this JSON.

    The response is streamed, without `Content-Length`, and does not support `Range`. `Bookclub-Books` is the number of
    books, if known. The export is complete if the response ends normally; HTTP clients raise an error otherwise. To
    resume an interrupted export, drop everything after the last complete book, and send its id as `after`, together
    with `data_version` and the same `format` and `with_delisted`. A resumed csv has no header; a resumed parquet is a
    separate file.

    Limits: one export at a time per account (429 `export-under-way`; after a lost connection it can take a minute until
    the server notices). The server runs a few at a time, and keeps one place for accounts without an export in the last
    15 minutes; if no place is free, the response is 503. An export is cut off if its client reads less than 1 MiB
    (uncompressed) in a minute. If others wait, the slowest export below 2 MiB per second is cut off after its first
    minute."""
    export = await exports.open(claims.user_id, query.format, query.with_delisted, query.after)
    try:
        fresh.check(export.state, None)
        if query.data_version not in {None, export.state.data_version}:
            raise problems.Problem(
                "data-moved-on",
                f"The data version is {export.state.data_version}, not {query.data_version}. Start the export again.",
            )
        response.headers["Accept-Ranges"] = "none"
        if (books := _books(counts.stock_of(champion, export.state), query)) is not None:
            response.headers["Bookclub-Books"] = str(books)
        return export.response(response.headers)
    except BaseException:
        await export.close()
        raise


def _books(stock: Stock | None, query: ExportQuery) -> int | None:
    """How many books the export has; None if Postgres would have to count them."""
    if stock is None or query.with_delisted:
        return None
    return len(stock.ids) - int(stock.ids.searchsorted(query.after, side="right"))


@router.get(
    "/popular",
    summary="Popular books",
    responses=problems.responses("no-feedback", "invalid-request", "database-unavailable", "busy") | CONDITIONAL,
)
async def list_popular(
    query: Annotated[PopularQuery, Query()],
    catalogue: TheCatalogue,
    popular: ThePopular,
    fresh: TheFreshness,
    response: Response,
) -> PopularBooks:
    """The listed books that most readers clicked, liked or swapped in the last 30 days, from the events of POST
    /feedback. Counted once a minute. Each reader counts once per book. 404 if there are no such events."""
    interest = await popular.interest()
    async with catalogue.snapshot() as snapshot:
        books = {row.id: Book.model_validate(row) for row in await snapshot.rows(select_listed(list(interest)))}
    wanted = [book_id for book_id in interest if book_id in books][: query.limit]
    if not wanted:
        raise problems.Problem("no-feedback")
    name_versions(response, None, snapshot)
    items = [PopularBook(book=books[book_id], interest=interest[book_id]) for book_id in wanted]
    answer = PopularBooks(items=items, data_version=snapshot.data_version)
    fresh.check_whole(answer, "max-age=60")
    return answer
