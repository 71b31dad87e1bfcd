"""Free text + champion + snapshot -> the listed books that match, best first, with the matches marked.

The champion's index ranks the books that pass the filters according to the lineup. The texts of the best are then read
from the snapshot, to score how much of the query they contain as a phrase. The books must pass the filters in the
snapshot, too, because some may have changed in the seconds since the lineup was read.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from bookclub_platform.core.browse import Filters, select_found
from bookclub_platform.core.tables import select_by_code, select_listed
from bookclub_platform.models import Found, find
from serving.books.facets import facets_of
from serving.database.catalogue import Snapshot
from serving.http import problems
from serving.process.off_loop import in_long_turn
from serving.recommender.champion import Champion
from serving.schemas.books import Book, Facets, SearchItem, SearchMatch, TextPart
from serving.schemas.requests import SearchQuery

RANKED = 2_000
"""Books that are looked at: those beyond have next to nothing of what was asked."""

_RANKED_OF_A_SHOP = 10 * RANKED  # the lineup does not know the source of a book: that filter comes after ranking
_READ = 100  # the best of them, whose texts are read
# ISBN, UPC, or a shop's own key: eight characters or more with at least one digit, perhaps in groups.
_CODE = re.compile(r"(?=[^\s]*[0-9])[0-9A-Za-z][0-9A-Za-z-]{7,39}", re.ASCII)


class FoundPage(NamedTuple):
    """One page, and the number of books on all pages; `facets` if requested."""

    items: list[SearchItem]
    total: int
    facets: Facets | None


async def search(champion: Champion, snapshot: Snapshot, query: SearchQuery) -> FoundPage:
    """The page of `query`.

    Raises:
        Problem: 503, the model in use was made before search existed; 409, the cursor belongs to another order.
    """
    filters, page = query.filters(), query.page
    found = await in_long_turn(_found, champion, query.q, filters)
    coded = await _coded(snapshot, query.q)
    ids = await _passing(snapshot, [*coded, *found.scores], filters)
    best, facets = ids[:_READ], None
    if query.facets:
        everything = await in_long_turn(_found, champion, query.q, Filters()) if filters != Filters() else found
        facets = await facets_of(snapshot, filters, among=list({*coded, *everything.scores, *ids}))
    if query.sort == "relevance":
        rows = await _rows(snapshot, {*best, *ids[page]})
        scores = await in_long_turn(_scores, found, coded, best, rows)
        ids = sorted(best, key=lambda book_id: -scores[book_id]) + ids[_READ:]
    else:
        ids = [row.id for row in await snapshot.rows(select_found(ids, filters, query.sort))]
        rows = await _rows(snapshot, ids[page])
        scores = await in_long_turn(_scores, found, coded, best, rows)
    shown = [(rows[book_id], scores.get(book_id) or found.scores[book_id]) for book_id in ids[page]]
    return FoundPage(await in_long_turn(_items, found, shown), len(ids), facets)


def _found(champion: Champion, text: str, filters: Filters) -> Found:
    grown = champion.lineup.grown
    models = [grown.base, grown.fresh] if grown.fresh is not None else [grown.base]
    # Filter before taking the best: a narrow category may have none of the best overall.
    may = champion.lineup.allowed(filters._replace(source=None))
    found = find(models, text, RANKED if filters.source is None else _RANKED_OF_A_SHOP, may)
    if found is None:
        detail = f"{champion.version.name} version {champion.version.version} has no search index. Train a new model."
        raise problems.Problem("no-search", detail, headers={"Retry-After": "60"})
    return found


async def _passing(snapshot: Snapshot, ids: Sequence[int], filters: Filters) -> list[int]:
    """Those of `ids` that pass, each once, in the same order; at most RANKED."""
    passed = {row.id for row in await snapshot.rows(select_found(ids, filters, None))} if ids else set()
    return [book_id for book_id in dict.fromkeys(ids) if book_id in passed][:RANKED]


async def _coded(snapshot: Snapshot, text: str) -> list[int]:
    """The books that have `text` as UPC or key."""
    code = text.strip()
    return [row.id for row in await snapshot.rows(select_by_code(code))] if _CODE.fullmatch(code) else []


async def _rows(snapshot: Snapshot, ids: Collection[int]) -> dict[int, sa.Row[Any]]:
    return {row.id: row for row in await snapshot.rows(select_listed(list(ids)))} if ids else {}


def _scores(found: Found, coded: Sequence[int], best: Sequence[int], rows: dict[int, sa.Row[Any]]) -> dict[int, float]:
    """Scores of the `best` books that are in `rows`; 1 for the `coded` ones."""
    scores = {book_id: found.score(book_id, _texts(rows[book_id])) for book_id in best if book_id in rows}
    return scores | dict.fromkeys(coded, 1.0)


def _items(found: Found, shown: Sequence[tuple[sa.Row[Any], float]]) -> list[SearchItem]:
    return [_item(found, row, score) for row, score in shown]


def _item(found: Found, row: sa.Row[Any], score: float) -> SearchItem:
    matched = SearchMatch(
        terms=found.reader.matched(_texts(row)),
        title=[TextPart.model_validate(piece) for piece in found.reader.pieces(row.title)],
        snippet=[TextPart.model_validate(piece) for piece in found.reader.snippet(row.description or "")],
    )
    return SearchItem(**dict(Book.model_validate(row)), score=score, matched=matched)


def _texts(row: sa.Row[Any]) -> list[str]:
    return [row.title, row.description or ""]
