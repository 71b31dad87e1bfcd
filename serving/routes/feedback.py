"""What readers did with recommendations, reported by the shops that showed them."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Security

from serving.access.guard import guard, lacking
from serving.access.rate_limit import tell
from serving.access.tokens import Claims
from serving.dependencies import TheFeedbackStore, TheMetrics
from serving.http import problems
from serving.schemas.feedback import FeedbackReceipt
from serving.schemas.requests import FeedbackRequest

router = APIRouter(tags=["Recommendations"], responses=problems.responses("database-unavailable"))


@router.post(
    "/feedback",
    summary="Send feedback",
    responses=problems.responses("unknown-books", 413, 415, "invalid-request"),
)
async def add_feedback(
    asked: FeedbackRequest,
    store: TheFeedbackStore,
    claims: Annotated[Claims, Security(guard, scopes=["feedback"])],
    metrics: TheMetrics,
    request: Request,
) -> FeedbackReceipt:
    """Up to 100 events about recommended books: shown, clicked, liked or swapped. In the example, the list of book 1
    contained book 12, and the reader gave book 1 for it: `book_id` is the book taken, `for_book_id` the book whose list
    it was (even if the reader gave another one for it). That book 12 was `shown` before is a separate event.

    `recommendation_id` is `id` of the response of GET /books/{book_id}/recommendations, POST /recommendations or POST
    /recommendations:batch. For POST /predict, join the headers `Bookclub-Model` and `Bookclub-Data-Version` with an
    `@`. Send events only for recommended books, not for books that readers found in other ways (GET /books,
    /books/search, /books/popular, /segments).

    The events are used to judge models. Each account counts as one reader; with the scope `readers`, for a shop's
    server, each `reader` counts. The number of events per day is limited (429): repeated ones count, those of a
    refused request do not. Either all events of a request are stored or none. An event whose `event_id` was stored
    before changes nothing, whatever else it says: if you get no response, send the same request again."""
    if any(event.reader is not None for event in asked.events) and (
        problem := lacking(claims, ["feedback", "readers"])
    ):
        raise problem
    with store.counted(claims.user_id, len(asked.events), partial(tell, request)):
        stored = await store.add(claims.user_id, asked.events)
    for event in stored:
        metrics.note_feedback(event.kind, f"{event.model}/{event.model_version}")
    return FeedbackReceipt(stored=len(stored), known=len(asked.events) - len(stored))
