"""Books like a book, for one or for many."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from serving import neighbours, problems
from serving.dependencies import TheCatalogue, TheChampion
from serving.questions import BatchRequest, BookId, ListQuery
from serving.schemas import BatchRecommendations, ModelRef, Recommendations
from serving.versions import name_versions

router = APIRouter(tags=["Recommendations"], responses=problems.responses(503))


@router.get("/books/{book_id}/recommendations", summary="Books like this one", responses=problems.responses(404, 422))
async def recommend(
    book_id: Annotated[BookId, Path()],
    query: Annotated[ListQuery, Query()],
    catalogue: TheCatalogue,
    champion: TheChampion,
    response: Response,
) -> Recommendations:
    """The nearest listed books, nearest first, each with its score and what the two share."""
    ranking = await neighbours.rank(champion.model, [book_id], query.limit)
    async with catalogue.snapshot() as snapshot:
        if await neighbours.unknown(snapshot, [book_id]):
            raise problems.UnknownBook(book_id)
        filled = await neighbours.fill(snapshot, champion.model, ranking, query.limit)
    name_versions(response, champion, snapshot)
    return Recommendations(
        **dict(neighbours.as_answer(book_id, filled)),
        model=ModelRef.model_validate(champion.version),
        data_version=snapshot.data_version,
    )


@router.post(
    "/recommendations:batch", summary="Books like each of many", responses=problems.responses(404, 413, 415, 422)
)
async def recommend_batch(
    asked: BatchRequest, catalogue: TheCatalogue, champion: TheChampion, response: Response
) -> BatchRecommendations:
    """The same lists as for single books, all of one model and one state of the catalogue.

    Ids are never reused or forgotten, so an unknown one is a fault of the caller: nothing is answered then, and the
    problem names each."""
    ranking = await neighbours.rank(champion.model, asked.book_ids, asked.limit)
    async with catalogue.snapshot() as snapshot:
        if unknown := await neighbours.unknown(snapshot, asked.book_ids):
            raise problems.UnknownBooks(unknown)
        filled = await neighbours.fill(snapshot, champion.model, ranking, asked.limit)
    name_versions(response, champion, snapshot)
    return BatchRecommendations(
        results=[neighbours.as_answer(book_id, filled) for book_id in asked.book_ids],
        model=ModelRef.model_validate(champion.version),
        data_version=snapshot.data_version,
    )
