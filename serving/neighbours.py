"""Book ids + champion + snapshot -> lists of listed books with score and reasons.

The model ranks what it was trained on; books that left the shop since are passed over, and replaced by the next ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bookclub_platform.core.tables import books, select_book, select_listed
from bookclub_platform.models import Model
from bookclub_platform.models import Recommendation as Ranked
from serving.catalogue import Snapshot
from serving.schemas import Book, BookRecommendations, Emptiness, Recommendation, Why

Ranking = dict[int, list[Ranked]]  # book id -> its neighbours, nearest first; ids that the model knows alone


async def unknown(snapshot: Snapshot, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that no book has. A delisted book is known: its page may still be open in a reader's browser."""
    listed = {row.id for row in await snapshot.rows(select_listed(ids).with_only_columns(books.c.id))}
    return [book_id for book_id in ids if book_id not in listed and not await snapshot.rows(select_book(book_id))]


async def rank(model: Model, ids: Sequence[int], limit: int) -> Ranking:
    """The `limit` nearest of each book, computed off the event loop: one list of a large model may take a while."""
    return await asyncio.to_thread(_rank, model, ids, limit)


def _rank(model: Model, ids: Sequence[int], limit: int) -> Ranking:
    ranking = {}
    for book_id in dict.fromkeys(ids):
        try:
            ranking[book_id] = model.recommend(book_id, limit)
        except KeyError:
            continue  # newer than the model: the answer says so
    return ranking


async def fill(snapshot: Snapshot, model: Model, ranking: Ranking, limit: int) -> dict[int, list[Recommendation]]:
    """`ranking` with its books, delisted ones replaced by the next in rank. One query, and one for each replacing."""
    listed: dict[int, Book | None] = {}
    filled: dict[int, list[Recommendation]] = {}
    depth = limit
    while ranking:
        listed |= await _books(snapshot, {row.book_id for rows in ranking.values() for row in rows} - listed.keys())
        filled |= {book_id: _items(rows, listed, limit) for book_id, rows in ranking.items()}
        short = [i for i, rows in ranking.items() if len(filled[i]) < limit and len(rows) == depth]
        depth *= 2
        ranking = await rank(model, short, depth)
    return filled


async def _books(snapshot: Snapshot, ids: set[int]) -> dict[int, Book | None]:
    """Each of `ids` -> the book, or None where it is not listed."""
    rows = await snapshot.rows(select_listed(sorted(ids))) if ids else []
    return dict.fromkeys(ids) | {row.id: Book.model_validate(row) for row in rows}


def _items(rows: list[Ranked], listed: dict[int, Book | None], limit: int) -> list[Recommendation]:
    items = []
    for row in rows:
        if (book := listed[row.book_id]) is not None:
            why = [Why.model_validate(reason) for reason in row.why]
            items.append(Recommendation(book=book, score=row.score, why=why))
    return items[:limit]


def as_answer(book_id: int, filled: dict[int, list[Recommendation]]) -> BookRecommendations:
    """The list of `book_id`, and why it is empty if it is."""
    items = filled.get(book_id, [])
    if items:
        return BookRecommendations(book_id=book_id, items=items)
    reason: Emptiness = "nothing_in_common" if book_id in filled else "not_in_model"
    return BookRecommendations(book_id=book_id, items=[], reason=reason)
