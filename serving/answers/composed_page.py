"""The listed books in memory + a request for a page in order of id -> the ids on the page, and its JSON.

page = request_of(b"limit=2&category=travel")          None: the route has to respond
found = ids_of(stock, page); page_json(found, books, page.mark, "50")
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from pydantic import ValidationError
from starlette.datastructures import QueryParams

from bookclub_platform.core.browse import Filters, Position
from bookclub_platform.core.stock import Stock
from serving.http.parameters import has_repeated
from serving.recommender.passing import passing
from serving.schemas import cursor
from serving.schemas.books import BookPage
from serving.schemas.requests import BookQuery

_LONGEST_QUERY = 500  # bytes; a query for a page by id is shorter, even with the longest category name


class PageRequest(NamedTuple):
    """`filters`: None for all books; `mark`: the mark of the list in its cursors (cursor.py)."""

    filters: Filters | None
    after_id: int
    limit: int
    mark: str


class PageIds(NamedTuple):
    """The ids of a page, whether it is the last one, and the number of books on all pages."""

    ids: list[int]
    is_last: bool
    total: int


def request_of(query: bytes) -> PageRequest | None:
    """What the query string asks for; None if this module does not support it or it is invalid."""
    return _request_of(query) if len(query) <= _LONGEST_QUERY else None


@lru_cache(4000)  # half a kilobyte each
def _request_of(query: bytes) -> PageRequest | None:
    parameters = QueryParams(query)
    if has_repeated(parameters):
        return None
    try:
        asked = BookQuery.model_validate(dict(parameters))
    except ValidationError:
        return None
    is_by_id = asked.sort == "id" and (asked.cursor is None or asked.cursor.sort == "id")
    if not is_by_id or asked.source is not None or asked.facets:
        return None
    filters, after_id = asked.filters(), asked.cursor.after.book_id if asked.cursor is not None else 0
    if asked.cursor is not None and not cursor.is_of(asked.cursor.mark, filters):
        return None
    return PageRequest(filters if filters != Filters() else None, after_id, asked.limit, cursor.mark_of(filters))


def ids_of(stock: Stock, asked: PageRequest) -> PageIds:
    """Find the page."""
    ids = stock.ids if asked.filters is None else stock.ids[passing(stock, asked.filters)]
    start = int(ids.searchsorted(asked.after_id, side="right"))
    end = start + asked.limit
    return PageIds(ids[start:end].tolist(), end >= len(ids), len(ids))


def page_json(page: PageIds, books: Sequence[bytes], mark: str, data_version: str) -> bytes:
    """The page with the JSON of its books, joined once: each copy of 30 kB costs as much as everything else here."""
    following = b"null" if page.is_last else b'"%b"' % cursor.encode("id", Position(page.ids[-1]), mark).encode()
    head, middle, between, tail = _around(data_version)
    items = [*books] or [b""]
    items[0] = head + items[0]
    items[-1] = b"%b%b%b%b%d%b" % (items[-1], middle, following, between, page.total, tail)
    return b",".join(items)


@lru_cache(1)
def _around(data_version: str) -> list[bytes]:
    """The JSON around the items, the next cursor and the total."""
    empty = BookPage(items=[], next=None, total=0, facets=None, data_version=data_version)
    return empty.json_around("items", "next", "total")
