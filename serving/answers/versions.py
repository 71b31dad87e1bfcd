"""Champion + snapshot -> the headers that name them, an ETag, and 304 for who has that answer already.

    await ... as snapshot:
        fresh.check(snapshot, champion)     # raises NotModified before anything else is asked of the database

An answer about books follows from the request, the data version and the model: if these are the same, so is the answer
(but for `last_seen_at`, which every crawl moves: the ETag is a weak one). Caches may keep it and must ask each time,
which costs one short query here: a book that is gone or a model that was taken back is gone at once.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel

from serving.database.catalogue import Snapshot, State
from serving.recommender.champion import Champion

VERSION_HEADERS = ("Bookclub-Data-Version", "Bookclub-Model")
# The `responses=` of a route that checks its freshness; document.py adds the headers that go with it.
CONDITIONAL: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not modified: the response with the ETag that you sent is still valid."}
}


# Of answers that some are given packed.
VARIED = "Authorization, Accept-Encoding"


class NotModified(Exception):
    """The client has the answer already; `headers` go with the 304."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("not modified")
        self.headers = headers


class Freshness:
    """Names what an answer is made of in its headers."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request, self._response = request, response

    def check(self, snapshot: Snapshot | State, champion: Champion | None, *more: str, has_lists: bool = False) -> None:
        """Set `Bookclub-Data-Version`, `Bookclub-Model` (`tfidf_model/1`) where there is a model, `ETag` and
        `Cache-Control`; `more` is what else the answer follows from. One that `has_lists` follows from the books that
        were ranked, too: the champion's lineup, which may be seconds behind.

        Raises:
            NotModified: `If-None-Match` names this very answer.
        """
        state = snapshot.state if isinstance(snapshot, Snapshot) else snapshot
        query, is_personal = self._request.scope["query_string"], "authorization" in self._request.headers
        told = fresh_headers(state, champion, query, *more, has_lists=has_lists, is_personal=is_personal)
        self._response.headers.update(told)
        if is_named(told["ETag"], self._request.headers.get("if-none-match", "")):
            raise NotModified(dict(self._response.headers))

    def check_whole(self, answer: BaseModel, lifetime: str = "no-cache") -> None:
        """The same of an answer that follows from more than books and model: `ETag`, of all that it says, and
        `Cache-Control`. It spares who has it the bytes alone.

        Raises:
            NotModified: likewise.
        """
        tag = weak_tag(answer.model_dump_json().encode())
        self._response.headers.update({"ETag": tag, **sharing("authorization" in self._request.headers, lifetime)})
        if is_named(tag, self._request.headers.get("if-none-match", "")):
            raise NotModified(dict(self._response.headers))


def weak_tag(content: bytes) -> str:
    """An ETag for what follows from `content`, or is it."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'


def fresh_headers(
    state: State, champion: Champion | None, query: bytes, *more: str, has_lists: bool, is_personal: bool
) -> dict[str, str]:
    """What `Freshness.check` sets for the question `query`; `is_personal`: of somebody who has sent a token."""
    if has_lists and champion is not None:
        more = (*more, champion.lineup.data_version or "")
    made_of = [state.stamp, *(champion.version.key if champion else ()), query.decode("latin-1"), *more]
    return {
        **version_headers(champion, state.data_version, has_lists),
        "ETag": weak_tag(chr(0).join(made_of).encode("utf-8", "replace")),
        **sharing(is_personal, "no-cache"),
    }


def sharing(is_personal: bool, lifetime: str) -> dict[str, str]:
    """The headers by which caches may keep an answer for `lifetime`: those of the client alone where it sent a token,
    for others may have none. Where login is required, that is every answer."""
    return {"Cache-Control": f"{'private' if is_personal else 'public'}, {lifetime}", "Vary": "Authorization"}


def is_named(tag: str, if_none_match: str) -> bool:
    """Whether `If-None-Match` names the tag (RFC 9110, 13.1.2: weak or strong are the same here)."""
    named = {name.strip().removeprefix("W/") for name in if_none_match.split(",")}
    return "*" in named or tag.removeprefix("W/") in named


def install(app: FastAPI) -> None:
    """Make `app` answer NotModified with 304."""
    app.add_exception_handler(NotModified, _not_modified)


async def _not_modified(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotModified)
    answer = Response(status_code=304, headers=error.headers)
    answer.headers["Vary"] = VARIED
    return answer


async def _freshness(request: Request, response: Response) -> Freshness:
    return Freshness(request, response)


TheFreshness = Annotated[Freshness, Depends(_freshness)]


def name_versions(
    response: Response, champion: Champion | None, snapshot: Snapshot | State, has_lists: bool = False
) -> None:
    """Set what `version_headers` says."""
    response.headers.update(version_headers(champion, snapshot.data_version, has_lists))


def version_headers(champion: Champion | None, data_version: str, has_lists: bool) -> dict[str, str]:
    """`Bookclub-Data-Version`, and `Bookclub-Model` (`tfidf_model/1`) where there is a model.

    An answer that `has_lists` rests on two states for some seconds after a load, and is named after the earlier: who
    keeps answers by version must not keep this one for the later.
    """
    if champion is None:
        return {"Bookclub-Data-Version": data_version}
    return {
        "Bookclub-Data-Version": (champion.lineup.data_version or "0") if has_lists else data_version,
        "Bookclub-Model": champion.version.label,
    }
