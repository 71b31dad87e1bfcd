"""What readers did with recommendations, told by the shops that showed them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Security

from serving import problems
from serving.dependencies import TheFeedbackBook
from serving.feedback_shapes import FeedbackReceipt
from serving.guard import guard, lacking
from serving.questions import FeedbackRequest
from serving.tokens import Claims

router = APIRouter(tags=["Recommendations"], responses=problems.responses("database-unavailable"))


@router.post(
    "/feedback",
    summary="Tell what readers did",
    responses=problems.responses("unknown-books", 413, 415, "invalid-request"),
)
async def add_feedback(
    asked: FeedbackRequest,
    book: TheFeedbackBook,
    claims: Annotated[Claims, Security(guard, scopes=["feedback"])],
    request: Request,
) -> FeedbackReceipt:
    """Recommended books that were shown, clicked, liked or swapped, up to 100 events at a time. Models are judged by
    it: each account is one reader, or, for a shop's server with the scope `readers`, each `reader` that it names. An
    account may tell so many events a day (429 beyond them, those that are told again among them). All events are kept
    or none, and one that is told again changes nothing: after an answer that did not come, tell the same again."""
    if any(event.reader is not None for event in asked.events) and (
        problem := lacking(claims, ["feedback", "readers"])
    ):
        raise problem
    stored = await book.add(claims.user_id, asked.events)
    for event in stored:
        request.state.metrics.note_feedback(event.kind, f"{event.model}/{event.model_version}")
    return FeedbackReceipt(stored=len(stored), known=len(asked.events) - len(stored))
