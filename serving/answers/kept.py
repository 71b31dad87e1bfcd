"""A request that was answered before -> the same bytes again, while model and data are the same; else the routes.

    app.add_middleware(KeepAnswers, kept=KeptAnswers(64 * 2**20), keeper=keeper, watch=watch, accounts=accounts)

A response is cached whole, under the model and the data version that its own headers name, and returned only while both
are in use. So no response mixes versions, and none is older than datawatch.py allows: one second, or up to 20 with a
large catalogue. While Postgres is down, recommendations are still returned, with the data version they were made from.
See docs/decisions/0010.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access.accounts import Accounts
from serving.access.guard import refusal
from serving.answers.versions import is_named
from serving.database.datawatch import DataWatch
from serving.http.digits import ID
from serving.http.headers import Pair, listed, named
from serving.recommender.champion import Champion, ChampionKeeper

# Responses that depend only on the books and the model.
_KEPT = re.compile(rf"/books(?:/{ID}(?P<list>/recommendations)?)?|/categories", re.ASCII)
# A crawl that finds nothing new changes `last_seen_at` but not the data version.
RENEWED_AFTER_S = 60.0
_LARGEST_SHARE = 1 / 64
_SHARING = (b"cache-control", b"public, no-cache"), (b"cache-control", b"private, no-cache")
# A 304 has no body, and clients would try to decompress a body that its headers call compressed.
_OF_BODIES = {b"content-length", b"content-type", b"content-encoding"}
_OVERHEAD_BYTES = 1700  # per entry, beyond its body: measured with 100,000 entries


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """One response of the routes, and its route. `headers` are for anonymous clients, `own_headers` for clients that
    send a token: the two differ in what caches may keep."""

    headers: list[Pair]
    own_headers: list[Pair]
    body: bytes
    route: Any
    query_bytes: int = 0  # of the query string, which is part of the key and may be longer than the response
    made_at: float = field(default_factory=time.monotonic)


class KeptAnswers:
    """The most recently used responses, up to `capacity_bytes`.

    Attributes:
        hits, stale, misses: requests answered from memory; lists answered from it while Postgres was down; the rest.
        composed: responses assembled from bytes in memory; composed.py counts them.
        size_bytes: approximate size of all entries.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._answers: OrderedDict[Hashable, KeptAnswer] = OrderedDict()
        self.hits = self.stale = self.misses = self.composed = self.size_bytes = 0

    def find(self, key: Hashable) -> KeptAnswer | None:
        if (answer := self._answers.get(key)) is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, key: Hashable, answer: KeptAnswer) -> None:
        """Keep `answer`, unless it would evict too many others."""
        size = _size(answer)
        if size > self._capacity_bytes * _LARGEST_SHARE:
            return
        if (before := self._answers.pop(key, None)) is not None:
            self.size_bytes -= _size(before)
        self._answers[key] = answer
        self.size_bytes += size
        while self.size_bytes > self._capacity_bytes:
            self.size_bytes -= _size(self._answers.popitem(last=False)[1])


def _size(answer: KeptAnswer) -> int:
    return len(answer.body) + answer.query_bytes + _OVERHEAD_BYTES


class KeepAnswers:
    """ASGI middleware, placed inside the one that counts requests, so that responses from memory are counted too."""

    def __init__(
        self, app: ASGIApp, kept: KeptAnswers, keeper: ChampionKeeper, watch: DataWatch, accounts: Accounts
    ) -> None:
        self._app, self._kept, self._keeper, self._watch, self._accounts = app, kept, keeper, watch, accounts
        self._seen: tuple[Champion | None, Hashable] = None, None
        self._generations: dict[tuple[str, str], int] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _KEPT.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        # Refusals are left to the routes.
        if asked is None or await refusal(scope["state"]["caller"], self._accounts, ["read"]) is not None:
            await self._app(scope, receive, send)
            return
        champion = self._keeper.current
        question = (
            scope["raw_path"],
            scope["query_string"],
            "gzip" in named(scope["headers"], b"accept-encoding"),
            self._state(champion),
            self._watch.outages,
        )
        answer = self._find(question, is_list=asked["list"] is not None)
        if answer is None:
            self._kept.misses += 1
            await self._ask(question, champion, scope, receive, send)
            return
        scope["route"] = answer.route
        status, body = (
            (304, b"") if _is_held(listed(scope["headers"], b"if-none-match"), answer) else (200, answer.body)
        )
        headers = answer.own_headers if named(scope["headers"], b"authorization") else answer.headers
        told = list(headers) if status == 200 else [pair for pair in headers if pair[0] not in _OF_BODIES]
        await send({"type": "http.response.start", "status": status, "headers": told})
        await send({"type": "http.response.body", "body": body})

    def _find(self, question: Hashable, is_list: bool) -> KeptAnswer | None:
        """The response for the current data; for a list, the last known one while the data version is uncertain."""
        answer = self._kept.find((question, self._watch.version))
        if answer is None:
            return None
        if not self._watch.is_current:
            self._kept.stale += is_list
            return answer if is_list else None
        if time.monotonic() - answer.made_at > RENEWED_AFTER_S:
            return None
        self._kept.hits += 1
        return answer

    def _state(self, champion: Champion | None) -> Hashable:
        """Names the state of the model: its version, and how often the model behind that version has been replaced."""
        before, state = self._seen
        if champion is None:
            return None
        if champion is before:
            return state
        key = champion.version.key
        if before is not None and before.model is not champion.model:
            self._generations[key] = self._generations.get(key, 0) + (before.version.key == key)
        self._seen = champion, (*key, self._generations.get(key, 0))
        return self._seen[1]

    async def _ask(
        self, question: Hashable, champion: Champion | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Let the routes respond, and keep the response if the champion did not change meanwhile."""
        status = 0
        headers: list[Pair] = []
        parts: list[bytes] = []
        is_whole = False

        async def send_and_note(message: Message) -> None:
            nonlocal status, headers, is_whole
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message["headers"])  # a copy: outer middleware may append to the list
            elif status == 200 and message["type"] == "http.response.body":
                parts.append(message.get("body", b""))
                is_whole = not message.get("more_body", False)
            await send(message)

        await self._app(scope, receive, send_and_note)
        if not is_whole or self._keeper.current is not champion:
            return
        version = named(headers, b"bookclub-data-version")
        label = champion.version.label if champion is not None else ""
        if version and named(headers, b"bookclub-model") == label:
            answer = KeptAnswer(*_for_both(headers), b"".join(parts), scope.get("route"), len(scope["query_string"]))
            self._kept.keep((question, version), answer)


def _for_both(headers: list[Pair]) -> tuple[list[Pair], list[Pair]]:
    """The headers for anonymous clients, and for clients that send a token (see `sharing` in versions.py)."""
    at = next((at for at, pair in enumerate(headers) if pair in _SHARING), None)
    if at is None:
        return headers, headers
    public, private = ([*headers[:at], pair, *headers[at + 1 :]] for pair in _SHARING)
    return public, private


def _is_held(if_none_match: str, answer: KeptAnswer) -> bool:
    """Whether the client already has that response."""
    tag = named(answer.headers, b"etag") if if_none_match else ""
    return tag != "" and is_named(tag, if_none_match)
