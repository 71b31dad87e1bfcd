"""The listed books in memory + a question for a page in order of id -> the page's place in them, and its JSON.

question = question_of(b"limit=2&category=travel")          None: the route has to answer
place = place_of(stock, question); page_json(place, books, "50")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydantic import ValidationError
from starlette.datastructures import QueryParams

from bookclub_platform.core.browse import Filters, Position
from bookclub_platform.core.stock import Stock
from serving import cursor
from serving.passing import passing
from serving.questions import BookQuery
from serving.schemas import BookPage

_ALL = Filters()


class Place(NamedTuple):
    """The ids of a page, whether books follow on another, and how many there are on all."""

    ids: list[int]
    is_last: bool
    total: int


@lru_cache(1000)
def question_of(query: bytes) -> BookQuery | None:
    """What the address asks for; None if more than this module knows, or nothing that there is."""
    try:
        asked = BookQuery.model_validate(dict(QueryParams(query)))
    except ValidationError:
        return None
    is_by_id = asked.sort == "id" and (asked.cursor is None or asked.cursor.sort == "id")
    return asked if is_by_id and asked.source is None and not asked.facets else None


def place_of(stock: Stock, asked: BookQuery) -> Place:
    """Where the page is."""
    filters, after_id = asked.filters(), asked.cursor.after.book_id if asked.cursor is not None else 0
    ids = stock.ids if filters == _ALL else stock.ids[passing(stock, filters)]
    start = int(ids.searchsorted(after_id, side="right"))
    end = start + asked.limit
    return Place(ids[start:end].tolist(), end >= len(ids), len(ids))


def page_json(place: Place, books: Sequence[bytes], data_version: str) -> bytes:
    """The page, with the JSON of its books."""
    following = None if place.is_last else cursor.encode("id", Position(place.ids[-1]))
    empty = BookPage(items=[], next=following, total=place.total, facets=None, data_version=data_version)
    head, tail = empty.model_dump_json().encode().split(b'"items":[]')
    return b'%b"items":[%b]%b' % (head, b",".join(books), tail)
