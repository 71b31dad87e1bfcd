"""Books like a book, like each of many, like several together, or like a text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from serving import neighbours, problems
from serving.catalogue import Snapshot
from serving.champion import Champion
from serving.dependencies import TheCatalogue, TheChampion
from serving.digits import BookId
from serving.gate import charge
from serving.neighbours import Found
from serving.questions import BatchRequest, ListQuery, ReaderRequest
from serving.schemas import (
    BatchRecommendations,
    BookRecommendations,
    ModelRef,
    ReaderRecommendations,
    Recommendations,
)
from serving.versions import CONDITIONAL, TheFreshness, name_versions

router = APIRouter(tags=["Recommendations"], responses=problems.responses("database-unavailable", "no-model"))

_READER = 0  # the key of a list that is no book's; ids begin at 1


@router.get(
    "/books/{book_id}/recommendations",
    summary="Books like this one",
    responses=problems.responses("unknown-book", "invalid-request") | CONDITIONAL,
)
async def recommend(
    book_id: Annotated[BookId, Path()],
    query: Annotated[ListQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampion,
    fresh: TheFreshness,
    request: Request,
) -> Recommendations:
    """The nearest listed books that pass the filters, nearest first, each with its score and what the two share.

    Where fewer than `limit` books that pass share anything with this one, the best rated of the others follow them, and
    `fallback` says so. With `diversity` it counts as two requests."""
    charge(request, query.units)
    choice = query.choice()
    asked = neighbours.probes(champion.lineup, [book_id])
    ranking = await neighbours.rank(champion.lineup, asked, choice)
    async with catalogue.snapshot() as snapshot:
        if await neighbours.unknown(snapshot, [book_id]):
            raise problems.UnknownBook(book_id)
        fresh.check(snapshot, champion, has_lists=True)
        found = await neighbours.find(snapshot, champion.lineup, asked, ranking, [book_id], choice)
    return Recommendations(book_id=book_id, **found[book_id]._asdict(), **_versions(champion, snapshot))


@router.post(
    "/recommendations:batch",
    summary="Books like each of many",
    response_model=BatchRecommendations,
    responses=problems.responses("unknown-books", 413, 415, "invalid-request"),
)
async def recommend_batch(
    asked: BatchRequest, catalogue: TheCatalogue, champion: TheChampion, request: Request, response: Response
) -> StreamingResponse:
    """The same lists as for single books, all of one model and one state of the catalogue. It counts as a request for
    each hundred books that the lists may have together, as two with `diversity`.

    Mind the colon where addresses are put together: as a relative one it is `./recommendations:batch`, for without the
    `./` what stands before a colon is read as a scheme (RFC 3986, 4.2).

    Ids are never reused or forgotten, so an unknown one is a fault of the caller: nothing is answered then, and the
    problem names each."""
    charge(request, asked.units)
    choice = asked.choice()
    probes = neighbours.probes(champion.lineup, asked.book_ids)
    ranking = await neighbours.rank(champion.lineup, probes, choice)
    async with catalogue.snapshot() as snapshot:
        if unknown := await neighbours.unknown(snapshot, asked.book_ids):
            raise problems.UnknownBooks(unknown)
        found = await neighbours.find(snapshot, champion.lineup, probes, ranking, asked.book_ids, choice)
    name_versions(response, champion, snapshot, has_lists=True)
    empty = BatchRecommendations(results=[], **_versions(champion, snapshot))
    told = _batch_json(empty, [(book_id, found[book_id]) for book_id in asked.book_ids])
    return StreamingResponse(told, media_type="application/json", headers=dict(response.headers))


@router.post(
    "/recommendations",
    summary="Books for a reader",
    responses=problems.responses("unknown-books", 413, 415, "invalid-request"),
)
async def recommend_to_reader(
    asked: ReaderRequest, catalogue: TheCatalogue, champion: TheChampion, request: Request, response: Response
) -> ReaderRecommendations:
    """One list for somebody who likes several books (`liked`), or who describes what to read next (`text`): one of the
    two, and 422 for both or neither.

    Of several books, a score is the mean of the nearness to each; the books themselves are never in the list. A text
    is read like a description of a book. With `diversity` it counts as two requests."""
    charge(request, asked.units)
    choice, lineup = asked.choice(), champion.lineup
    choice = choice._replace(exclude=(*choice.exclude, *(asked.liked or ())))  # nor what fills up the list
    known = list(neighbours.probes(lineup, asked.liked or []))
    probes = {_READER: lineup.grown.probe(known)} if known else {}
    if asked.text is not None:
        probes = {_READER: await neighbours.probe_of_text(lineup, asked.text)}
    ranking = await neighbours.rank(lineup, probes, choice)
    async with catalogue.snapshot() as snapshot:
        if asked.liked and (unknown := await neighbours.unknown(snapshot, asked.liked)):
            raise problems.UnknownBooks(unknown)
        found = await neighbours.find(snapshot, lineup, probes, ranking, [_READER], choice)
    name_versions(response, champion, snapshot, has_lists=True)
    return ReaderRecommendations(**found[_READER]._asdict(), **_versions(champion, snapshot))


async def _batch_json(empty: BatchRecommendations, lists: Sequence[tuple[int, Found]]) -> AsyncIterator[bytes]:
    """List by list: made and packed at once, the whole would hold up all others for a tenth of a second."""

    def told(book_id: int, found: Found) -> bytes:
        return BookRecommendations(book_id=book_id, **found._asdict()).model_dump_json().encode()

    head, tail = empty.json_around("results")
    yield head
    for number, (book_id, found) in enumerate(lists):
        yield b"," * (number > 0) + await asyncio.to_thread(told, book_id, found)
    yield tail


def _versions(champion: Champion, snapshot: Snapshot) -> dict[str, Any]:
    return {
        "model": ModelRef.model_validate(champion.version),
        "data_version": snapshot.data_version,
        "ranked_data_version": champion.lineup.data_version,
    }
