"""Probes + lineup + snapshot -> lists of listed books with score and reasons.

The lineup ranks the books as they were some seconds ago. Books that were delisted since, or no longer pass the filters
in the snapshot of the response, are skipped and replaced by the next in rank.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sa

from bookclub_platform.core.browse import Filters
from bookclub_platform.core.stock import fingerprint
from bookclub_platform.core.tables import lacking, select_listed, select_shelves
from bookclub_platform.models import Probe
from bookclub_platform.models import Recommendation as Ranked
from serving.database.catalogue import LARGE_FROM, Snapshot
from serving.process.off_loop import in_turn
from serving.recommender.lineup import Lineup
from serving.recommender.passing import passes_book
from serving.schemas.books import Book, Emptiness, Fallback, Recommendation, RecommendationReason
from serving.schemas.requests import Choice

_AT_ONCE = 100  # books; a thread of the pool turns them into items in a few milliseconds
_T = TypeVar("_T")

Ranking = dict[int, list[Ranked]]  # key of a probe -> its neighbours, nearest first


class FilledList(NamedTuple):
    """A list. `reason`: why near books do not fill it; `fallback`: what kind of books fill the rest."""

    items: list[Recommendation]
    reason: Emptiness | None = None
    fallback: Fallback | None = None


async def unknown(snapshot: Snapshot, ids: Sequence[int]) -> list[int]:
    """The `ids` that no book has. A delisted book counts as known: its page may still be open in a reader's browser."""
    return lacking(ids, await snapshot.rows(select_shelves(ids)))


def probes(lineup: Lineup, ids: Sequence[int]) -> dict[int, Probe]:
    """One for each of `ids` that the lineup knows; it may not know a book that was added a second ago."""
    found = {}
    for book_id in dict.fromkeys(ids):
        try:
            found[book_id] = lineup.grown.probe([book_id])
        except KeyError:
            continue
    return found


async def probe_of_text(lineup: Lineup, text: str) -> Probe:
    """The probe for `text`; off the event loop, because the first one of a large model stems its whole vocabulary."""
    return await asyncio.to_thread(lineup.grown.probe_of_text, text)


async def rank(lineup: Lineup, asked: Mapping[int, Probe], choice: Choice, depth: int | None = None) -> Ranking:
    """The nearest of each probe, computed off the event loop in small parts, so that other requests get their turn."""
    depth, keys = depth or choice.limit, list(asked)
    ranking: Ranking = {}
    at_once = max(1, _AT_ONCE // depth) if len(lineup.grown.ids) < LARGE_FROM else 1
    for start in range(0, len(keys), at_once):
        some = {key: asked[key] for key in keys[start : start + at_once]}
        ranking |= await in_turn(_rank, lineup, some, choice, depth)
    return ranking


def _rank(lineup: Lineup, asked: Mapping[int, Probe], choice: Choice, depth: int) -> Ranking:
    may = lineup.allowed(choice.filters)
    return {
        key: lineup.grown.nearest(probe, depth, may, choice.exclude, choice.diversity) for key, probe in asked.items()
    }


async def fill(
    snapshot: Snapshot, lineup: Lineup, asked: Mapping[int, Probe], ranking: Ranking, choice: Choice
) -> dict[int, list[Recommendation]]:
    """`ranking` with its books; missing ones are replaced by the next. One query, and one for each round of these."""
    listed: dict[int, Book | None] = {}
    filled: dict[int, list[Recommendation]] = {}
    depth = choice.limit
    while ranking:
        wanted = {row.book_id for rows in ranking.values() for row in rows} - listed.keys()
        listed |= await _books(snapshot, wanted, choice.filters)
        for key, rows in ranking.items():
            filled[key] = await _apart(_items, rows, listed, choice.limit, size=len(ranking) * depth)
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
) -> dict[int, FilledList]:
    """A list for each of `keys`: near books and, if they are too few, well rated ones, labelled as such."""
    filled = await fill(snapshot, lineup, asked, ranking, choice)
    short = [key for key in dict.fromkeys(keys) if len(filled.get(key, [])) < choice.limit]
    others, shelves = await _others(snapshot, lineup, short, filled, choice) if short else ({}, {})
    found = {}
    for key in dict.fromkeys(keys):
        near, rest = filled.get(key, []), others.get(key, [])
        is_own_shelf = all(book.category == shelves.get(key) for book in rest)
        items = near + [Recommendation(book=book, score=0, why=[]) for book in rest]
        found[key] = FilledList(items, *labels(key in filled, len(near), len(rest), is_own_shelf))
    return found


def labels(is_known: bool, near: int, others: int, is_own_shelf: bool) -> tuple[Emptiness | None, Fallback | None]:
    """Reason and fallback of a list with this many `near` and `others`. `is_known`: the model knows the requested book;
    `is_own_shelf`: all others are in its category."""
    if not others:
        return None if near else "no_book_passes", None
    reason: Emptiness = "little_in_common" if near else "nothing_in_common" if is_known else "not_in_model"
    return reason, "well_rated_in_category" if is_own_shelf else "well_rated"


async def _others(
    snapshot: Snapshot,
    lineup: Lineup,
    short: Sequence[int],
    filled: Mapping[int, Sequence[Recommendation]],
    choice: Choice,
) -> tuple[dict[int, list[Book]], dict[int, str]]:
    """The books that fill the lists of the keys `short`, and the category that comes first in each: its book's own."""
    shelves = {}
    if choice.filters.category is None:
        shelves = {row.id: row.category for row in await snapshot.rows(select_shelves(short))}
    near = {key: [item.book.id for item in filled.get(key, [])] for key in short}

    def chosen() -> dict[int, list[int]]:
        """Twice as many as needed: some may have been delisted since."""
        excluded, found = lineup.works_of(choice.exclude), {}
        for key in short:
            left_out = excluded | lineup.works_of([key, *near[key]])
            shelf = fingerprint(shelves[key]) if key in shelves else None
            found[key] = lineup.well_rated(choice.filters, 2 * choice.limit, left_out, shelf)
        return found

    ids = await in_turn(chosen)
    listed = await _books(snapshot, {book_id for some in ids.values() for book_id in some}, choice.filters)
    there = {key: [book for book_id in ids[key] if (book := listed[book_id]) is not None] for key in short}
    return {key: there[key][: choice.limit - len(near[key])] for key in short}, shelves


async def _books(snapshot: Snapshot, ids: set[int], filters: Filters) -> dict[int, Book | None]:
    """Each of `ids` -> the book, or None where it is not listed or does not pass."""
    rows = await snapshot.rows(select_listed(sorted(ids))) if ids else []
    found: list[Book] = []
    for start in range(0, len(rows), _AT_ONCE):
        found += await _apart(_validated, rows[start : start + _AT_ONCE], size=len(rows))
    return dict.fromkeys(ids) | {book.id: book for book in found if passes_book(book, filters)}


def _validated(rows: Sequence[sa.Row[Any]]) -> list[Book]:
    return [Book.model_validate(row) for row in rows]


async def _apart(work: Callable[..., _T], *given: Any, size: int) -> _T:
    """The result of `work`, run off the event loop if `size` is too much for the loop."""
    return await asyncio.to_thread(work, *given) if size > _AT_ONCE else work(*given)


def _items(rows: list[Ranked], listed: dict[int, Book | None], limit: int) -> list[Recommendation]:
    items = []
    for row in rows:
        if (book := listed[row.book_id]) is not None:
            why = [RecommendationReason.model_validate(reason) for reason in row.why]
            items.append(Recommendation(book=book, score=row.score, why=why))
    return items[:limit]
