"""Lists of books with paths of their own below /books. `routers()` of this package sorts them before
`/books/{book_id}`, which would take them otherwise."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response, Security
from starlette.responses import StreamingResponse

from bookclub_platform.core.stock import Stock
from bookclub_platform.core.tables import select_listed
from serving import counts, problems
from serving.dependencies import TheCatalogue, TheChampionIfAny, TheExports, ThePopular
from serving.examples import example_of_model
from serving.exports import MEDIA_TYPES
from serving.feedback_shapes import PopularBook, PopularBooks
from serving.guard import guard
from serving.questions import ExportQuery, PopularQuery
from serving.schemas import Book
from serving.tokens import Claims
from serving.versions import CONDITIONAL, TheFreshness, name_versions

router = APIRouter(prefix="/books", tags=["Books"], responses=problems.responses("database-unavailable"))

_LINE = example_of_model(Book) | {"also_in": None}
# Generators make one type of all three, and parquet read as text is spoilt: bytes. Some take any text/... for text
# whatever its schema says, and make code of the two that fails, so csv has none.
_FILE = {"type": "string", "format": "binary"}
_EXPORTED: dict[str, dict[str, Any]] = {
    MEDIA_TYPES["ndjson"]: {"schema": _FILE, "example": f"{json.dumps(_LINE)}\n"},
    MEDIA_TYPES["csv"]: {"example": f"{','.join(_LINE)}\r\n"},
    MEDIA_TYPES["parquet"]: {"schema": _FILE},
}


@router.get(
    "/export",
    summary="All books at once",
    response_class=StreamingResponse,
    responses=problems.responses(
        "data-moved-on", "invalid-request", "export-under-way", "format-absent", "database-unavailable", "busy"
    )
    | CONDITIONAL
    | {200: {"description": "The books.", "content": _EXPORTED}},
)
async def export_books(
    query: Annotated[ExportQuery, Query()],
    claims: Annotated[Claims, Security(guard, scopes=["export"])],
    exports: TheExports,
    champion: TheChampionIfAny,
    fresh: TheFreshness,
    response: Response,
) -> StreamingResponse:
    """Every listed book with all the fields of `Book`, in order of `id`, all of one state of the catalogue, however
    long it takes to send. The last column, `also_in`, is a list of the categories that list the book beside its own,
    with `category`, `category_name` and `last_seen_at` of each, or null: in ndjson a JSON value as the others, in csv
    and parquet a text with that JSON in it. Asked with the ETag of the last time it answers 304 until something
    changed.

    It is sent while it is read: without `Content-Length`, and without parts by `Range`. It came whole if the body ended
    as HTTP has it (the last chunk; END_STREAM): clients raise an error otherwise, and parquet then lacks its end.
    `Bookclub-Books` says how many books there are to come, where that is known. Should it break off: cut what came
    after the last whole book, and ask for the rest with `after` and `data_version`, and the same `format` and
    `with_delisted` (csv then comes without its header; a rest in parquet is a file of its own).

    An account has one at a time (429 `export-under-way`): after a connection that was lost without a word, until the
    server knows of it, which takes a minute at most. Where all places are taken, or the last is kept for who had none
    in the last 15 minutes, the answer is 503: ask again. It is broken off if it takes less than 1 MiB in a minute,
    counted unpacked, and after the first minute, if others wait, the slowest of those that take less than 2 MiB a
    second."""
    export = await exports.open(claims.user_id, query.format, query.with_delisted, query.after)
    try:
        fresh.check(export.state, None)
        if query.data_version not in {None, export.state.data_version}:
            raise problems.Problem(
                "data-moved-on",
                f"The books are of data version {export.state.data_version} now, not of {query.data_version}. Begin "
                "the export anew.",
            )
        response.headers["Accept-Ranges"] = "none"
        if (books := _books(counts.stock_of(champion, export.state), query)) is not None:
            response.headers["Bookclub-Books"] = str(books)
        return export.response(response.headers)
    except BaseException:
        await export.close()
        raise


def _books(stock: Stock | None, query: ExportQuery) -> int | None:
    """How many books the export has; None where Postgres would have to count them."""
    if stock is None or query.with_delisted:
        return None
    return len(stock.ids) - int(stock.ids.searchsorted(query.after, side="right"))


@router.get(
    "/popular",
    summary="What readers want",
    responses=problems.responses("no-feedback", "invalid-request", "busy") | CONDITIONAL,
)
async def list_popular(
    query: Annotated[PopularQuery, Query()],
    catalogue: TheCatalogue,
    popular: ThePopular,
    fresh: TheFreshness,
    response: Response,
) -> PopularBooks:
    """The listed books that the most readers clicked, liked or swapped in the last 30 days, by what POST /feedback was
    told, counted once a minute: each account as one reader, however often it does so. 404 while nobody did."""
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
