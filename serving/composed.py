"""GET of a book, of its recommendations or of a page -> the answer put together from bytes in memory; else the routes.

    app.add_middleware(ComposeAnswers, keeper=keeper, catalogue=catalogue, books=books, accounts=accounts, counts=kept)

The routes would say the same, byte for byte, and say all else: what is wrong with a question, and what there is instead
of near books. An answer is put together only while the lineup is of the newest data version: it is of that one state,
for each book in it is of the version of its row that the lineup names. docs/decisions/0010 tells why.
"""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from pydantic import ValidationError
from starlette.datastructures import Headers, QueryParams
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.stock import SELECT_VERSIONED
from serving.accounts import Accounts
from serving.book_bytes import BookBytes
from serving.catalogue import Catalogue
from serving.champion import Champion, ChampionKeeper
from serving.composed_page import page_json, place_of, question_of
from serving.guard import refusal
from serving.kept import KeptAnswers
from serving.lineup import Filters, Lineup
from serving.neighbours import Choice, labels
from serving.questions import ListQuery
from serving.schemas import Emptiness, Fallback, ModelRef, Recommendations
from serving.versions import Freshness, NotModified

_ASKED = re.compile(r"/books(?:/([0-9]{1,19})(/recommendations)?)?", re.ASCII)
_SMALL = 20_000  # of so many books any list is found in less time than another thread takes to begin
_SHORT = 10
_UNLIKE = b'"score":0.0,"why":[]}'


class Template(NamedTuple):
    """The route that an answer stands for, as logs and metrics name it."""

    path: str


_PAGE, _BOOK, _LIST = Template("/books"), Template("/books/{book_id}"), Template("/books/{book_id}/recommendations")


class ComposeAnswers:
    """ASGI middleware; inside of what keeps answers. `packing` is how those are packed whose clients take that."""

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
        self._frame: tuple[Champion | None, list[bytes]] = None, []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _ASKED.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        champion = self._keeper.current
        if asked is None or champion is None or not self._is_newest(champion.lineup):
            response = None
        elif await refusal(scope["state"]["caller"], self._accounts, ["read"]) is not None:
            response = None  # the routes say it
        elif asked[2]:
            template, response = _LIST, await self._list(champion, int(asked[1]), Request(scope))
        elif asked[1]:
            template, response = _BOOK, await self._book(champion, int(asked[1]), Request(scope))
        else:
            template, response = _PAGE, await self._page(champion, Request(scope))
        if response is None:
            await self._app(scope, receive, send)
            return
        self._counts.composed += 1
        scope["route"] = template
        # For an answer that is not packed that middleware does no more than this, at the cost of a list.
        if "gzip" in Headers(scope=scope).get("accept-encoding", ""):
            await GZipMiddleware(response, **self._packing)(scope, receive, send)
            return
        if len(response.body) >= self._packing["minimum_size"]:
            response.headers.add_vary_header("Accept-Encoding")
        await response(scope, receive, send)

    def _is_newest(self, lineup: Lineup) -> bool:
        watch = self._catalogue.watch
        return lineup.state is not None and (lineup.data_version, lineup.epoch) == (watch.version, watch.outages)

    async def _book(self, champion: Champion, book_id: int, request: Request) -> Response | None:
        lineup = champion.lineup
        if not self._catalogue.watch.is_current or lineup.row(book_id) is None or lineup.state is None:
            return None
        books = await self._json_of(lineup, [book_id])
        return self._fresh(champion, request, books[0]) if books is not None else None

    async def _page(self, champion: Champion, request: Request) -> Response | None:
        lineup, asked = champion.lineup, question_of(request.scope["query_string"])
        if asked is None or not self._catalogue.watch.is_current or lineup.stock is None or lineup.state is None:
            return None
        is_short_work = len(lineup.stock.ids) <= _SMALL
        place = place_of(lineup.stock, asked) if is_short_work else await to_thread(place_of, lineup.stock, asked)
        books = await self._json_of(lineup, place.ids)
        if books is None:
            return None
        return self._fresh(champion, request, page_json(place, books, lineup.state.data_version))

    @staticmethod
    def _fresh(champion: Champion, request: Request, body: bytes, has_lists: bool = False) -> Response:
        assert champion.lineup.state is not None
        headers = Response()
        del headers.headers["content-length"]
        try:
            Freshness(request, headers).check(champion.lineup.state, champion, has_lists=has_lists)
        except NotModified as answered:
            return Response(status_code=304, headers=answered.headers)
        response = Response(body, media_type="application/json")
        response.raw_headers.extend(headers.raw_headers)
        return response

    async def _list(self, champion: Champion, book_id: int, request: Request) -> Response | None:
        """While Postgres is away, too: of what is in memory."""
        lineup, choice = champion.lineup, _choice(request.scope["query_string"])
        if choice is None or choice.diversity > 0 or lineup.row(book_id) is None or lineup.state is None:
            return None
        found = await _found(lineup, book_id, choice)
        if found is None:
            return None
        listed = found.near + [(other, _UNLIKE) for other in found.others]
        books = await self._json_of(lineup, [other for other, _ in listed])
        if books is None:
            return None
        told = labels(True, len(found.near), len(found.others), found.is_own_shelf)
        head, middle, tail = self._frame_of(champion) if told == (None, None) else _frame(champion, *told)
        items = b",".join(b'{"book":%b,%b' % (book, near) for book, (_, near) in zip(books, listed, strict=True))
        body = b"%b%b%b%d%b" % (head, items, middle, book_id, tail)
        return self._fresh(champion, request, body, has_lists=True)

    async def _json_of(self, lineup: Lineup, ids: Sequence[int]) -> list[bytes] | None:
        """The books as `lineup` knows them; None if one of them is another by now, or cannot be read."""
        assert lineup.stock is not None
        versions = lineup.stock.version[lineup.stock.ids.searchsorted(ids)].tolist()
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
        whole = [json for json in found if json is not None]
        return whole if len(whole) == len(found) else None

    def _frame_of(self, champion: Champion) -> list[bytes]:
        """What stands before the items, between them and the book's id, and after it."""
        known, frame = self._frame
        if known is not champion:
            frame = _frame(champion)
            self._frame = champion, frame
        return frame


def _frame(champion: Champion, reason: Emptiness | None = None, fallback: Fallback | None = None) -> list[bytes]:
    assert champion.lineup.state is not None
    version = champion.lineup.state.data_version
    empty = Recommendations(
        book_id=0,
        items=[],
        reason=reason,
        fallback=fallback,
        model=ModelRef.model_validate(champion.version),
        data_version=version,
        ranked_data_version=version,
    )
    head, rest = empty.model_dump_json().encode().split(b'"items":[')
    middle, tail = rest.split(b'"book_id":0')
    return [head + b'"items":[', middle + b'"book_id":', tail]


@lru_cache(1000)
def _choice(query: bytes) -> Choice | None:
    """What the address asks for; None if the route has to say what is wrong with it."""
    parameters = QueryParams(query)
    values: dict[str, object] = dict(parameters)
    if "exclude" in parameters:
        values["exclude"] = parameters.getlist("exclude")
    try:
        return ListQuery.model_validate(values).choice()
    except ValidationError:
        return None


class _Found(NamedTuple):
    """Near books, what is told of each, and the others that fill the list; `is_own_shelf`: of the category asked from
    alone."""

    near: list[tuple[int, bytes]]
    others: list[int]
    is_own_shelf: bool


async def _found(lineup: Lineup, book_id: int, choice: Choice) -> _Found | None:
    """None if the model does not know the book."""

    def found() -> _Found | None:
        assert lineup.near is not None
        try:
            near = lineup.near.of(book_id, choice.limit, lineup.allowed(choice.filters), choice.exclude)
        except KeyError:
            return None
        lacking = choice.limit - len(near)
        return _Found(near, *_others(lineup, book_id, choice, lacking, near)) if lacking else _Found(near, [], False)

    assert lineup.stock is not None
    is_plain = choice.filters == Filters() and not choice.exclude and choice.limit <= _SHORT
    return found() if is_plain or len(lineup.stock.ids) <= _SMALL else await to_thread(found)


def _others(
    lineup: Lineup, book_id: int, choice: Choice, lacking: int, near: Sequence[tuple[int, bytes]]
) -> tuple[list[int], bool]:
    stock, row = lineup.stock, lineup.row(book_id)
    assert stock is not None and row is not None
    shelf = int(stock.category[row]) if choice.filters.category is None else None
    left_out = lineup.works_of([book_id, *choice.exclude, *(other for other, _ in near)])
    ids = lineup.well_rated(choice.filters, lacking, left_out, shelf)
    return ids, bool((stock.category[stock.ids.searchsorted(ids)] == shelf).all()) if shelf is not None else False
