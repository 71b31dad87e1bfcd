"""Champion + snapshot -> the headers that name them, an ETag, and 304 if the client already has that response.

    await ... as snapshot:
        fresh.check(snapshot, champion)     # raises NotModified before any other query

The request, the data version and the model determine a response about books: if they are the same, so is the response
(except `last_seen_at`, which every crawl changes: so the ETag is weak). Caches may store it but must revalidate it each
time, which costs one short query here. So a delisted book or a model that was rolled back disappears at once.
"""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel

from serving.database.catalogue import Snapshot, State
from serving.http.headers import listed
from serving.recommender.champion import Champion

VERSION_HEADERS = ("Bookclub-Data-Version", "Bookclub-Model")
# The `responses=` of a route that checks its freshness; openapi/document.py adds the headers that go with it.
CONDITIONAL: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not modified: the response with the ETag that you sent is still valid."}
}


# Part of each ETag: after an upgrade the same data may give another response.
_RELEASE = version("bookclub-platform")
# `Vary` of responses that some clients get gzipped.
VARIED = "Authorization, Accept-Encoding"


class NotModified(Exception):
    """The client already has the response; `headers` go with the 304."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("not modified")
        self.headers = headers


class Freshness:
    """Sets the headers that name what a response is made from."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request, self._response = request, response

    def check(self, snapshot: Snapshot | State, champion: Champion | None, *more: str, has_lists: bool = False) -> None:
        """Set `Bookclub-Data-Version`, `Bookclub-Model` (`tfidf_model/1`) if there is a model, `ETag` and
        `Cache-Control`. `more`: what else the response depends on. With `has_lists` it also depends on the books that
        were ranked: the champion's lineup, which may be seconds behind.

        Raises:
            NotModified: `If-None-Match` names this response.
        """
        state = snapshot.state if isinstance(snapshot, Snapshot) else snapshot
        query, is_personal = self._request.scope["query_string"], "authorization" in self._request.headers
        told = fresh_headers(state, champion, query, *more, has_lists=has_lists, is_personal=is_personal)
        self._response.headers.update(told)
        if is_named(told["ETag"], listed(self._request.scope["headers"], b"if-none-match")):
            raise NotModified(dict(self._response.headers))

    def check_whole(self, answer: BaseModel, lifetime: str = "no-cache") -> None:
        """The same for a response that depends on more than books and model: set `ETag`, computed from its whole
        content, and `Cache-Control`. A 304 then saves only the transfer of the body.

        Raises:
            NotModified: `If-None-Match` names this response.
        """
        tag = weak_tag(answer.model_dump_json().encode())
        self._response.headers.update({"ETag": tag, **sharing("authorization" in self._request.headers, lifetime)})
        if is_named(tag, listed(self._request.scope["headers"], b"if-none-match")):
            raise NotModified(dict(self._response.headers))


def weak_tag(content: bytes) -> str:
    """A weak ETag for `content`, or for a response that `content` determines."""
    return f'W/"{hashlib.sha256(content).hexdigest()[:24]}"'


def fresh_headers(
    state: State, champion: Champion | None, query: bytes, *more: str, has_lists: bool, is_personal: bool
) -> dict[str, str]:
    """The headers that `Freshness.check` sets for the query string `query`; `is_personal`: the client sent a token."""
    if has_lists and champion is not None:
        more = (*more, champion.lineup.data_version or "")
    made_of = [_RELEASE, state.stamp, *(champion.version.key if champion else ()), query.decode("latin-1"), *more]
    return {
        **version_headers(champion, state.data_version, has_lists),
        "ETag": weak_tag(chr(0).join(made_of).encode("utf-8", "replace")),
        **sharing(is_personal, "no-cache"),
    }


def sharing(is_personal: bool, lifetime: str) -> dict[str, str]:
    """The headers that let caches keep a response for `lifetime`: only the client's own cache if it sent a token,
    because others may have none. Where login is required, that is every response."""
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
    """Set the headers of `version_headers`."""
    response.headers.update(version_headers(champion, snapshot.data_version, has_lists))


def version_headers(champion: Champion | None, data_version: str, has_lists: bool) -> dict[str, str]:
    """`Bookclub-Data-Version`, and `Bookclub-Model` (`tfidf_model/1`) if there is a model.

    With `has_lists` the response depends on two states for some seconds after a load, and is named after the earlier
    one: a client that caches by version must not keep it under the later one.
    """
    if champion is None:
        return {"Bookclub-Data-Version": data_version}
    return {
        "Bookclub-Data-Version": (champion.lineup.data_version or "0") if has_lists else data_version,
        "Bookclub-Model": champion.version.label,
    }
