"""Books that are similar to one book, to each of many, to several together, or to a text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import StreamingResponse

from serving.access.rate_limit import charge
from serving.answers.versions import CONDITIONAL, TheFreshness, name_versions
from serving.database.catalogue import Snapshot
from serving.dependencies import TheCatalogue, TheChampion
from serving.http import problems
from serving.http.digits import BookId
from serving.recommender import neighbours
from serving.recommender.champion import Champion
from serving.recommender.neighbours import FilledList
from serving.schemas.books import (
    BatchRecommendations,
    BookRecommendations,
    ModelRef,
    ReaderRecommendations,
    Recommendations,
)
from serving.schemas.requests import BatchRequest, ListQuery, ReaderRequest

router = APIRouter(tags=["Recommendations"], responses=problems.responses("database-unavailable", "no-model"))

_READER = 0  # the key of a list that belongs to no book; ids begin at 1


@router.get(
    "/books/{book_id}/recommendations",
    summary="Similar books",
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
    """The most similar listed books that pass the filters, each with its score and the reasons.

    If fewer than `limit` of these books are similar to this one, the best rated others follow, and `fallback` says so.
    With `diversity` the request counts as two."""
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
    summary="Similar books for many books",
    response_model=BatchRecommendations,
    responses=problems.responses("unknown-books", 413, 415, "invalid-request"),
)
async def recommend_batch(
    asked: BatchRequest, catalogue: TheCatalogue, champion: TheChampion, request: Request, response: Response
) -> StreamingResponse:
    """The same lists as for single books, all from one model and one data version. The request counts as one for each
    100 items that the lists can have together (number of books x `limit`), and twice as many with `diversity`.

    The path contains a colon. If you build it as a relative URL, write `./recommendations:batch`; otherwise the part
    before the colon is read as a scheme (RFC 3986, 4.2).

    If any id is unknown, the whole request fails with a problem that lists the unknown ids. (Ids are never reused or
    removed.)"""
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
    """One list, either for a reader who likes several books (`liked`) or for a text that says what to read next
    (`text`). Send exactly one of the two; otherwise the response is 422.

    With `liked`, the score is the mean of the similarities to these books, and none of them is in the list. A `text` is
    treated like the description of a book. With `diversity` the request counts as two."""
    charge(request, asked.units)
    choice, lineup = asked.choice(), champion.lineup
    choice = choice._replace(exclude=(*choice.exclude, *(asked.liked or ())))  # not as a fallback either
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


async def _batch_json(empty: BatchRecommendations, lists: Sequence[tuple[int, FilledList]]) -> AsyncIterator[bytes]:
    """List by list: to serialise and compress all at once would block all other requests for a tenth of a second."""

    def told(book_id: int, found: FilledList) -> bytes:
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
