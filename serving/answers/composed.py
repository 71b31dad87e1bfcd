"""GET of a book, its recommendations or a page -> the response assembled from bytes in memory; else the routes.

    app.add_middleware(ComposeAnswers, keeper=keeper, catalogue=catalogue, books=books, accounts=accounts, counts=kept)

The routes would give the same response, byte for byte. They also give all others: errors, lists with `diversity`, lists
for a book that the model does not know. A response is assembled only while the lineup has the data version to answer
with. All of it belongs to that one state, because each book in it has the row version that the lineup names. See
docs/decisions/0010.
"""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

from pydantic import ValidationError
from starlette.datastructures import QueryParams
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from bookclub_platform.core.browse import IN_STOCK
from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.stock import SELECT_VERSIONED
from serving.access.accounts import Accounts
from serving.access.guard import refusal
from serving.answers.composed_page import ids_of, page_json, request_of
from serving.answers.frame import Around, Composed, Frame
from serving.answers.kept import KeptAnswers
from serving.books.book_bytes import BookBytes
from serving.database.catalogue import LARGE_FROM, Catalogue
from serving.http.digits import ID
from serving.http.headers import named
from serving.http.parameters import has_repeated
from serving.process.off_loop import in_turn
from serving.recommender.champion import ChampionKeeper
from serving.recommender.lineup import Lineup
from serving.recommender.near_bytes import Near
from serving.recommender.neighbours import labels
from serving.schemas.requests import Choice, ListQuery

_ASKED = re.compile(rf"/books(?:/({ID})(/recommendations)?)?", re.ASCII)
_SHORT = 10
_UNLIKE = b',"score":0.0,"why":[]}'


class Template(NamedTuple):
    """The route that a response replaces, as logs and metrics name it."""

    path: str


_PAGE, _BOOK, _LIST = Template("/books"), Template("/books/{book_id}"), Template("/books/{book_id}/recommendations")


class ComposeAnswers:
    """ASGI middleware, placed inside KeepAnswers. `packing`: options of GZipMiddleware for clients that accept gzip."""

    def __init__(
        self,
        app: ASGIApp,
        keeper: ChampionKeeper,
        catalogue: Catalogue,
        books: BookBytes,
        accounts: Accounts,
        counts: KeptAnswers,
        packing: dict[str, Any],
    ) -> None:
        self._app, self._keeper, self._catalogue, self._books = app, keeper, catalogue, books
        self._accounts, self._counts, self._packing = accounts, counts, packing
        self._frame: Frame | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _ASKED.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        frame = self._newest() if asked is not None else None
        if asked is None or frame is None:
            answer = None
        elif await refusal(scope["state"]["caller"], self._accounts, ["read"]) is not None:
            answer = None  # the routes send the refusal
        elif asked[2]:
            template, answer = _LIST, await self._list(frame, int(asked[1]), scope)
        elif asked[1]:
            template, answer = _BOOK, await self._book(frame, int(asked[1]), scope)
        else:
            template, answer = _PAGE, await self._page(frame, scope)
        if answer is None:
            await self._app(scope, receive, send)
            return
        self._counts.composed += 1
        scope["route"] = template
        # For a client without gzip that middleware does no more than the lines below, but costs as much as a list.
        if "gzip" in named(scope["headers"], b"accept-encoding"):
            await GZipMiddleware(answer, **self._packing)(scope, receive, send)
            return
        if len(answer.body) >= self._packing["minimum_size"]:
            answer = answer.varied()
        await answer(scope, receive, send)

    def _newest(self) -> Frame | None:
        """The champion's frame, if its lineup has the state of the books to answer with."""
        champion, watch = self._keeper.current, self._catalogue.watch
        if champion is None or (champion.lineup.data_version, champion.lineup.epoch) != (watch.version, watch.outages):
            return None
        if champion.lineup.state is None or champion.lineup.stock is None:
            return None
        frame = self._frame
        if frame is None or frame.champion is not champion:
            frame = self._frame = Frame(champion)
        return frame

    async def _book(self, frame: Frame, book_id: int, scope: Scope) -> Composed | None:
        lineup = frame.champion.lineup
        if not self._catalogue.watch.is_current or not lineup.is_listed(book_id) or scope["query_string"]:
            return None
        books = await self._json_of(lineup, [book_id])
        return frame.answer(scope, books[0]) if books is not None else None

    async def _page(self, frame: Frame, scope: Scope) -> Composed | None:
        lineup, asked = frame.champion.lineup, request_of(scope["query_string"])
        if asked is None or not self._catalogue.watch.is_current:
            return None
        is_short_work = asked.filters is None or len(frame.stock.ids) < LARGE_FROM
        page = ids_of(frame.stock, asked) if is_short_work else await to_thread(ids_of, frame.stock, asked)
        books = await self._json_of(lineup, page.ids)
        if books is None:
            return None
        return frame.answer(scope, page_json(page, books, asked.mark, frame.state.data_version))

    async def _list(self, frame: Frame, book_id: int, scope: Scope) -> Composed | None:
        """Also works while Postgres is down, from what is in memory."""
        lineup, choice = frame.champion.lineup, _choice(scope["query_string"])
        if choice is None or choice.diversity > 0 or not lineup.is_listed(book_id):
            return None
        found = await _found(lineup, book_id, choice)
        if found is None:
            return None
        ids, told = found.near.ids.tolist(), found.near.told
        if found.others:
            ids, told = ids + found.others, told + [_UNLIKE] * len(found.others)
        books = await self._json_of(lineup, ids)
        if books is None:
            return None
        around = frame.around(*labels(True, len(found.near.told), len(found.others), found.is_own_shelf))
        return frame.answer(scope, _list_json(around, book_id, books, told), has_lists=True)

    async def _json_of(self, lineup: Lineup, ids: Sequence[int]) -> list[bytes] | None:
        """The JSON of the books in the lineup's row versions; None if a row has changed since or cannot be read."""
        if lineup.json:
            return [lineup.json[book_id] for book_id in ids]
        versions = lineup.versions(ids)
        found = self._books.of(ids, versions, lineup.epoch)
        if None in found:
            lacking = [book_id for book_id, json in zip(ids, found, strict=True) if json is None]
            if not self._catalogue.watch.is_current:
                return None
            try:
                self._books.keep(await self._catalogue.rows(SELECT_VERSIONED, {"ids": lacking}), lineup.epoch)
            except DatabaseUnavailable:
                return None
            found = self._books.of(ids, versions, lineup.epoch)
        return None if None in found else cast(list[bytes], found)


def _list_json(around: Around, book_id: int, books: list[bytes], told: list[bytes]) -> bytes:
    """Join all parts once: a list is 25 kB, and each copy of it costs as much as everything else here."""
    parts, opening = [around.head], b'{"book":'
    for book, near in zip(books, told, strict=True):
        parts += (opening, book, near)
        opening = b',{"book":'
    return b"".join([*parts, around.middle, b"%d" % book_id, around.tail])


@lru_cache(1000)
def _choice(query: bytes) -> Choice | None:
    """What the query string asks for; None if it is invalid and the route has to report that."""
    parameters = QueryParams(query)
    if has_repeated(parameters, "exclude"):
        return None
    values: dict[str, object] = dict(parameters)
    if "exclude" in parameters:
        values["exclude"] = parameters.getlist("exclude")
    try:
        return ListQuery.model_validate(values).choice()
    except ValidationError:
        return None


class _Found(NamedTuple):
    """Near books, and ids of the others that fill the list; `is_own_shelf`: all others are in the book's category."""

    near: Near
    others: list[int]
    is_own_shelf: bool


async def _found(lineup: Lineup, book_id: int, choice: Choice) -> _Found | None:
    """None if the model does not know the book."""
    assert lineup.stock is not None
    is_small = len(lineup.stock.ids) < LARGE_FROM
    is_plain = choice.limit <= _SHORT and (choice.filters, choice.exclude) == (IN_STOCK, ())
    is_short_work = is_small or (is_plain and lineup.grown.fresh is not None)  # few books are newer than the model
    asked = lineup, book_id, choice
    try:
        near = _near_at_hand(*asked) if choice.limit <= _SHORT else None
        if near is None:
            near = _near(*asked) if is_short_work else await in_turn(_near, *asked)
    except KeyError:
        return None
    if len(near.told) == choice.limit:
        return _Found(near, [], False)
    return _Found(near, *(_others(*asked, near) if is_small else await in_turn(_others, *asked, near)))


def _near_at_hand(lineup: Lineup, book_id: int, choice: Choice) -> Near | None:
    assert lineup.near is not None
    mask = lineup.at_hand(choice.filters)
    return mask and lineup.near.at_hand(book_id, choice.limit, mask, choice.exclude)


def _near(lineup: Lineup, book_id: int, choice: Choice) -> Near:
    assert lineup.near is not None
    return lineup.near.of(book_id, choice.limit, lineup.mask(choice.filters), choice.exclude)


def _others(lineup: Lineup, book_id: int, choice: Choice, near: Near) -> tuple[list[int], bool]:
    stock, row = lineup.stock, lineup.row(book_id)
    assert stock is not None and row is not None
    shelf = int(stock.category[row]) if choice.filters.category is None else None
    left_out = lineup.works_of([book_id, *choice.exclude, *near.ids.tolist()])
    ids = lineup.well_rated(choice.filters, choice.limit - len(near.told), left_out, shelf)
    return ids, bool((stock.category[stock.ids.searchsorted(ids)] == shelf).all()) if shelf is not None else False
