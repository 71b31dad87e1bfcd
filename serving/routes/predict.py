"""For internal services that have the books themselves: only ids."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving.answers.versions import name_versions
from serving.dependencies import TheCatalogue, TheChampion
from serving.http import problems
from serving.recommender import neighbours
from serving.schemas.books import Prediction
from serving.schemas.requests import Choice, PredictRequest

router = APIRouter(tags=["Recommendations"], responses=problems.responses("database-unavailable", "no-model"))


@router.post(
    "/predict",
    summary="Ids of similar books",
    responses=problems.responses("unknown-book", 413, 415, "invalid-request"),
)
async def predict(
    asked: PredictRequest, catalogue: TheCatalogue, champion: TheChampion, response: Response
) -> Prediction:
    """The same list as GET /books/{book_id}/recommendations, only ids."""
    lineup, choice = champion.lineup, Choice(limit=asked.limit)
    probes = neighbours.probes(lineup, [asked.book_id])
    ranking = await neighbours.rank(lineup, probes, choice)
    async with catalogue.snapshot() as snapshot:
        if await neighbours.unknown(snapshot, [asked.book_id]):
            raise problems.UnknownBook(asked.book_id)
        found = await neighbours.find(snapshot, lineup, probes, ranking, [asked.book_id], choice)
    name_versions(response, champion, snapshot, has_lists=True)
    return Prediction(book_id=asked.book_id, ids=[item.book.id for item in found[asked.book_id].items])
