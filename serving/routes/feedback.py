"""What readers did with recommendations, told by the shops that showed them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Security

from serving import problems
from serving.dependencies import TheFeedbackBook, TheMetrics
from serving.feedback_shapes import FeedbackReceipt
from serving.gate import tell
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
    metrics: TheMetrics,
    request: Request,
) -> FeedbackReceipt:
    """Recommended books that were shown, clicked, liked or swapped, up to 100 events at a time. The example: the list
    of book 1 offered 12, and the reader gave their 1 and took 12. `book_id` is the book taken, `for_book_id` the one
    whose list it was; had they given another book for it, that one is not told. That it was `shown` is an event before
    it, with an id of its own.

    `recommendation_id` is `id` of GET /books/{book_id}/recommendations, POST /recommendations and
    /recommendations:batch; of POST /predict it is `Bookclub-Model`, an `@` and `Bookclub-Data-Version`, from its
    headers. What readers found by themselves (GET /books, /books/search, /books/popular, /segments) was not recommended
    to them, and nothing is told of it.

    Models are judged by it: each account is one reader, or, for a shop's server with the scope `readers`, each `reader`
    that it names. An account may tell so many events a day (429 beyond them, those that are told again among them). All
    events are kept or none, and one that is told again changes nothing: after an answer that did not come, tell the
    same again."""
    if any(event.reader is not None for event in asked.events) and (
        problem := lacking(claims, ["feedback", "readers"])
    ):
        raise problem
    if (standing := book.count(claims.user_id, len(asked.events))) is not None:
        tell(request, standing)
    stored = await book.add(claims.user_id, asked.events)
    for event in stored:
        metrics.note_feedback(event.kind, f"{event.model}/{event.model_version}")
    return FeedbackReceipt(stored=len(stored), known=len(asked.events) - len(stored))
