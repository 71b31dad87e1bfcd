"""Free text + champion + snapshot -> the listed books that fit, best first, with what matches marked.

The champion's index ranks all books that it knows; of the best that pass the filters the texts are read, from the
snapshot, for how much of the question stands there word after word.
"""

from __future__ import annotations

import asyncio
import re
from typing import NamedTuple

from bookclub_platform.core.tables import select_by_code, select_chosen, select_listed
from bookclub_platform.models import Found, find
from serving import problems
from serving.catalogue import Snapshot
from serving.champion import Champion
from serving.questions import SearchQuery
from serving.schemas import Book, Matched, Piece, SearchItem

RANKED = 2_000
"""Books that are looked at: those beyond have next to nothing of what was asked."""

_READ = 100  # the best of them, whose texts are read
# ISBN, UPC, or a shop's own key: eight signs or more, a digit among them, perhaps in groups.
_CODE = re.compile(r"(?=[^\s]*[0-9])[0-9A-Za-z][0-9A-Za-z-]{7,39}", re.ASCII)


class Finding(NamedTuple):
    """One page, and how many there are on all pages."""

    items: list[SearchItem]
    total: int


async def search(champion: Champion, snapshot: Snapshot, query: SearchQuery) -> Finding:
    """The page of `query`.

    Raises:
        Problem: 503, the model in use was made before there was search.
    """
    grown = champion.lineup.grown
    models = [grown.base, grown.fresh] if grown.fresh is not None else [grown.base]
    found = await asyncio.to_thread(find, models, query.q, RANKED)
    if found is None:
        detail = f"{champion.version.name} version {champion.version.version} has no index of words: train it again."
        raise problems.Problem(503, "no-search", detail, headers={"Retry-After": "60"})
    coded = await _coded(snapshot, query.q)
    ids = list(dict.fromkeys([*coded, *found.scores]))
    passed = {row.id for row in await snapshot.rows(select_chosen(ids, **query.filters()))} if ids else set()
    ids = [book_id for book_id in ids if book_id in passed]
    page = slice(query.start, query.start + query.limit)
    wanted = list(dict.fromkeys([*ids[:_READ], *ids[page]]))
    rows = await snapshot.rows(select_listed(wanted)) if wanted else []
    books = {row.id: Book.model_validate(row) for row in rows}
    return Finding(await asyncio.to_thread(_items, found, coded, ids, page, books), len(ids))


async def _coded(snapshot: Snapshot, text: str) -> list[int]:
    """The books whose UPC or key `text` is."""
    code = text.strip()
    return [row.id for row in await snapshot.rows(select_by_code(code))] if _CODE.fullmatch(code) else []


def _items(found: Found, coded: list[int], ids: list[int], page: slice, books: dict[int, Book]) -> list[SearchItem]:
    scores = {book_id: found.score(book_id, _texts(books[book_id])) for book_id in ids[:_READ]}
    scores |= dict.fromkeys(coded, 1.0)
    ordered = sorted(ids[:_READ], key=lambda book_id: -scores[book_id]) + ids[_READ:]
    return [_item(found, books[book_id], scores.get(book_id) or found.scores[book_id]) for book_id in ordered[page]]


def _item(found: Found, book: Book, score: float) -> SearchItem:
    matched = Matched(
        terms=found.reader.matched(_texts(book)),
        title=[Piece.model_validate(piece) for piece in found.reader.pieces(book.title)],
        snippet=[Piece.model_validate(piece) for piece in found.reader.snippet(book.description or "")],
    )
    return SearchItem(**dict(book), score=score, matched=matched)


def _texts(book: Book) -> list[str]:
    return [book.title, book.description or ""]
