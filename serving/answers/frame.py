"""A champion -> the parts that all its responses assembled from bytes share, built once for as long as it is in use.

frame = Frame(champion)
frame.around()                        the JSON before the items of a list, after them, and after the book's id
frame.answer(scope, body)             an ASGI application: the body with the headers of the routes, or 304
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from starlette.types import Receive, Scope, Send

from serving.answers.versions import VARIED, fresh_headers, is_named
from serving.http.headers import Pair, listed, named
from serving.recommender.champion import Champion
from serving.schemas.books import Emptiness, Fallback, ModelRef, Recommendations

_MOST_QUESTIONS = 1000


class Around(NamedTuple):
    """The JSON of a list without its items and the book's id."""

    head: bytes
    middle: bytes
    tail: bytes


@dataclass(slots=True)
class Composed:
    """A response; the last of its headers is Vary."""

    status: int
    headers: list[Pair]
    body: bytes

    def varied(self) -> Composed:
        """The same, with the Vary header of a response that other clients get gzipped."""
        return Composed(self.status, [*self.headers[:-1], (b"vary", VARIED.encode())], self.body)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


class Frame:
    """The shared parts for one champion, whose lineup has been read from the database."""

    def __init__(self, champion: Champion) -> None:
        assert champion.lineup.state is not None and champion.lineup.stock is not None
        self.champion, self.state, self.stock = champion, champion.lineup.state, champion.lineup.stock
        self._around: dict[tuple[Emptiness | None, Fallback | None], Around] = {}
        self._headers: dict[tuple[bytes, bool, bool], list[Pair]] = {}

    def around(self, reason: Emptiness | None = None, fallback: Fallback | None = None) -> Around:
        """The JSON around a list with these labels; see `labels` in recommender/neighbours.py."""
        if (around := self._around.get((reason, fallback))) is None:
            around = self._around[reason, fallback] = _around(self.champion, reason, fallback)
        return around

    def answer(self, scope: Scope, body: bytes, has_lists: bool = False) -> Composed:
        """The response with the headers of `Freshness.check`; 304 if the client already has it."""
        told = self._told(scope, has_lists)
        held = listed(scope["headers"], b"if-none-match")
        if held and is_named(named(told, b"etag"), held):
            return Composed(304, told, b"").varied()
        sized = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
        return Composed(200, [*sized, *told], body)

    def _told(self, scope: Scope, has_lists: bool) -> list[Pair]:
        query, is_personal = scope["query_string"], any(name == b"authorization" for name, _ in scope["headers"])
        key = query, is_personal, has_lists
        if (told := self._headers.get(key)) is None:
            headers = fresh_headers(self.state, self.champion, query, has_lists=has_lists, is_personal=is_personal)
            told = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
            if len(self._headers) >= _MOST_QUESTIONS:
                self._headers.clear()
            self._headers[key] = told
        return told


def _around(champion: Champion, reason: Emptiness | None, fallback: Fallback | None) -> Around:
    version = champion.lineup.data_version or "0"
    empty = Recommendations(
        book_id=0,
        items=[],
        reason=reason,
        fallback=fallback,
        model=ModelRef.model_validate(champion.version),
        data_version=version,
        ranked_data_version=version,
    )
    return Around(*empty.json_around("items", "book_id"))
