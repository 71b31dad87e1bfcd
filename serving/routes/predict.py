"""For services inside, which have the books themselves: ids alone."""

from __future__ import annotations

from fastapi import APIRouter, Response

from serving import neighbours, problems
from serving.dependencies import TheCatalogue, TheChampion
from serving.questions import PredictRequest
from serving.schemas import Prediction
from serving.versions import name_versions

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
    lineup, choice = champion.lineup, neighbours.Choice(limit=asked.limit)
    probes = neighbours.probes(lineup, [asked.book_id])
    ranking = await neighbours.rank(lineup, probes, choice)
    async with catalogue.snapshot() as snapshot:
        if await neighbours.unknown(snapshot, [asked.book_id]):
            raise problems.UnknownBook(asked.book_id)
        found = await neighbours.find(snapshot, lineup, probes, ranking, [asked.book_id], choice)
    name_versions(response, champion, snapshot, has_lists=True)
    return Prediction(book_id=asked.book_id, ids=[item.book.id for item in found[asked.book_id].items])
