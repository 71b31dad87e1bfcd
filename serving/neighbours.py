"""Probes + lineup + snapshot -> lists of listed books with score and reasons.

The lineup ranks what was in the shop some seconds ago; what left it since, or passes the filters no more, is passed
over in the snapshot that the answer is of, and replaced by the next in rank.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bookclub_platform.core.tables import books, select_book, select_listed
from bookclub_platform.models import Probe
from bookclub_platform.models import Recommendation as Ranked
from serving.catalogue import Snapshot
from serving.lineup import Filters, Lineup
from serving.schemas import Book, Emptiness, Fallback, Recommendation, Why

Ranking = dict[int, list[Ranked]]  # key of a probe -> its neighbours, nearest first


class Choice(NamedTuple):
    """What a list is to be like."""

    filters: Filters = Filters()
    limit: int = 10
    exclude: tuple[int, ...] = ()
    diversity: float = 0.0


class Found(NamedTuple):
    """A list. `reason`: why nothing near was found; `fallback`: what the books are then."""

    items: list[Recommendation]
    reason: Emptiness | None = None
    fallback: Fallback | None = None


async def unknown(snapshot: Snapshot, ids: Sequence[int]) -> list[int]:
    """Those of `ids` that no book has. A delisted book is known: its page may still be open in a reader's browser."""
    listed = {row.id for row in await snapshot.rows(select_listed(ids).with_only_columns(books.c.id))}
    return [book_id for book_id in ids if book_id not in listed and not await snapshot.rows(select_book(book_id))]


def probes(lineup: Lineup, ids: Sequence[int]) -> dict[int, Probe]:
    """One for each of `ids` that the lineup knows; it does not know a book that came a second ago."""
    found = {}
    for book_id in dict.fromkeys(ids):
        try:
            found[book_id] = lineup.grown.probe([book_id])
        except KeyError:
            continue
    return found


async def probe_of_text(lineup: Lineup, text: str) -> Probe:
    """For what is near to `text`; off the event loop: the first one of a large model stems its whole vocabulary."""
    return await asyncio.to_thread(lineup.grown.probe_of_text, text)


async def rank(lineup: Lineup, asked: Mapping[int, Probe], choice: Choice, depth: int | None = None) -> Ranking:
    """The nearest of each probe, computed off the event loop: one list of a large model may take a while."""
    return await asyncio.to_thread(_rank, lineup, asked, choice, depth or choice.limit)


def _rank(lineup: Lineup, asked: Mapping[int, Probe], choice: Choice, depth: int) -> Ranking:
    may = lineup.allowed(choice.filters)
    return {
        key: lineup.grown.nearest(probe, depth, may, choice.exclude, choice.diversity) for key, probe in asked.items()
    }


async def fill(
    snapshot: Snapshot, lineup: Lineup, asked: Mapping[int, Probe], ranking: Ranking, choice: Choice
) -> dict[int, list[Recommendation]]:
    """`ranking` with its books, those that are gone replaced by the next. One query, and one for each replacing."""
    listed: dict[int, Book | None] = {}
    filled: dict[int, list[Recommendation]] = {}
    depth = choice.limit
    while ranking:
        wanted = {row.book_id for rows in ranking.values() for row in rows} - listed.keys()
        listed |= await _books(snapshot, wanted, choice.filters)
        filled |= {key: _items(rows, listed, choice.limit) for key, rows in ranking.items()}
        short = [key for key, rows in ranking.items() if len(filled[key]) < choice.limit and len(rows) == depth]
        depth *= 2
        ranking = await rank(lineup, {key: asked[key] for key in short}, choice, depth) if short else {}
    return filled


async def find(
    snapshot: Snapshot,
    lineup: Lineup,
    asked: Mapping[int, Probe],
    ranking: Ranking,
    keys: Sequence[int],
    choice: Choice,
) -> dict[int, Found]:
    """A list for each of `keys`: of near books, or, where there is none, of well rated ones, which says so."""
    filled = await fill(snapshot, lineup, asked, ranking, choice)
    found = {}
    for key in dict.fromkeys(keys):
        if items := filled.get(key):
            found[key] = Found(items)
        else:
            reason: Emptiness = "nothing_in_common" if key in filled else "not_in_model"
            found[key] = await _instead(snapshot, lineup, key, choice, reason)
    return found


async def _instead(snapshot: Snapshot, lineup: Lineup, key: int, choice: Choice, reason: Emptiness) -> Found:
    own = await snapshot.rows(select_book(key)) if key > 0 else []
    tries: list[tuple[Fallback, Filters]] = [("well_rated", choice.filters)]
    if own and choice.filters.category is None:
        tries.insert(0, ("well_rated_in_category", choice.filters._replace(category=own[0].category)))
    for name, filters in tries:
        ids = await asyncio.to_thread(lineup.well_rated, filters, 2 * choice.limit, {key, *choice.exclude})
        listed = await _books(snapshot, set(ids), filters)
        there = [book for book_id in ids if (book := listed[book_id]) is not None]
        if there:
            items = [Recommendation(book=book, score=0, why=[]) for book in there[: choice.limit]]
            return Found(items, reason, name)
    return Found([], reason)


async def _books(snapshot: Snapshot, ids: set[int], filters: Filters) -> dict[int, Book | None]:
    """Each of `ids` -> the book, or None where it is not listed or does not pass."""
    rows = await snapshot.rows(select_listed(sorted(ids))) if ids else []
    found = [Book.model_validate(row) for row in rows]
    return dict.fromkeys(ids) | {book.id: book for book in found if _passes(book, filters)}


def _passes(book: Book, filters: Filters) -> bool:
    return (
        (book.in_stock or not filters.in_stock)
        and filters.category in {None, book.category}
        and (filters.min_price is None or book.price >= filters.min_price)
        and (filters.max_price is None or book.price <= filters.max_price)
        and (filters.min_rating is None or (book.rating or 0) >= filters.min_rating)
    )


def _items(rows: list[Ranked], listed: dict[int, Book | None], limit: int) -> list[Recommendation]:
    items = []
    for row in rows:
        if (book := listed[row.book_id]) is not None:
            why = [Why.model_validate(reason) for reason in row.why]
            items.append(Recommendation(book=book, score=row.score, why=why))
    return items[:limit]
