"""What caches that others share may keep of each route where everybody has to log in: nothing."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, ids_of, problem
from bookclub_platform_tests.test_accounts import PASSWORD, register
from serving.access.callers import COOKIE
from serving.access.paths import WEB_LOGIN
from serving.app import create_app
from serving.web.shelf import COVERS

world = given.world

# What says nothing of books: probes, documents, style, and the way in.
OPEN = {"/health", "/ready", "/metrics", "/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect", "/"}
OPEN |= {f"/static-offline-docs/{name}" for name in ("swagger-ui.css", "swagger-ui-bundle.js", "redoc.standalone.js")}
OPEN |= {"/static", "/static-offline-docs/favicon.png", "/catalogue/login", "/catalogue/register", "/catalogue/logout"}
COVER = "ab" * 32


class Closed(NamedTuple):
    """An API whose every route with data asks who one is, a reader's token, and the same reader's cookie."""

    app: FastAPI
    client: httpx.Client
    token: dict[str, str]
    cookie: dict[str, str]


@pytest.fixture(scope="module")
def closed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Closed]:
    home: Path = tmp_path_factory.mktemp("home")
    settings = given.settings(home, require_login=True, answer_cache_mb=8)
    folder = home / "covers" / "books_toscrape" / "ab"
    folder.mkdir(parents=True)
    (folder / f"{COVER}.thumbnail.webp").write_bytes(b"RIFF")
    settings.report.parent.mkdir(parents=True)
    settings.report.write_text("<!doctype html><title>The catalogue</title>")
    app = create_app(settings, world.database_url, world.tracking_uri)
    with given.serving(app) as client:
        token = {"authorization": f"Bearer {register(client, 'sharer')['access_token']}"}
        given.wait_for(lambda: client.get("/model", headers=token).is_success, 30)
        event = {
            "event_id": str(uuid.uuid4()),
            "kind": "liked",
            "recommendation_id": f"tfidf_model/{world.first.version}@1",
        }
        liked = {"events": [event | {"book_id": ids_of(world)[0]}]}
        assert client.post("/feedback", json=liked, headers=token).json()["stored"] == 1
        sent = client.post(WEB_LOGIN, data={"username": "sharer", "password": PASSWORD})
        client.cookies.clear()
        found = re.match(f"{COOKIE}=([^;]+);", sent.headers["set-cookie"])
        assert found
        yield Closed(app, client, token, {"cookie": f"{COOKIE}={found[1]}"})


def addresses(app: FastAPI, book_id: int) -> dict[str, str]:
    """Each route and mount that GET may be asked of -> an address of it."""
    queries = {"/books/search": "?q=lighthouse", COVERS: f"/books_toscrape/ab/{COVER}.thumbnail.webp"}
    paths = {path for path, methods in app.openapi()["paths"].items() if "get" in methods}
    paths |= {one.path for one in app.routes if isinstance(one, Mount)}
    paths |= {one.path for one in app.routes if isinstance(one, Route) and "GET" in (one.methods or ())}
    paths |= {"/catalogue", "/catalogue/{book_id}", "/catalogue/account"}  # which no document names
    filled = {"{book_id}": str(book_id), "{segment_id}": "1-1", "{crawl_id}": str(uuid.uuid4())}
    return {path: re.sub(r"{\w+}", lambda name: filled[name[0]], path) + queries.get(path, "") for path in paths}


def test_no_route_with_data_answers_a_stranger_or_lets_others_share_what_it_told(world: World, closed: Closed) -> None:
    asked = addresses(closed.app, ids_of(world)[0])
    assert {"/books/popular", "/books/export", COVERS, "/segments", "/report", "/catalogue/{book_id}"} <= asked.keys()
    told = set()
    for path, address in asked.items():
        if path in OPEN:
            continue
        stranger = closed.client.get(address)
        assert stranger.status_code in {303, 401} and stranger.headers["cache-control"] == "no-store", path
        who = closed.cookie if path.startswith("/catalogue") else closed.token
        for _ in range(2):  # the second from memory
            answer = closed.client.get(address, headers=who)
            if answer.is_success:
                told.add(path)
            may = {word.strip().partition("=")[0] for word in answer.headers.get("cache-control", "").split(",")}
            # What lifts the ban on answers to a request with a token (RFC 9111, 3.5); cookies have no such ban.
            assert not may & {"public", "s-maxage", "must-revalidate"}, (path, may)
            assert who is closed.token or may & {"private", "no-store"}, (path, may)
    assert asked.keys() - OPEN - told <= {"/segments", "/segments/{segment_id}", "/crawls/{crawl_id}"}


def test_a_cover_is_for_who_may_read_and_of_an_open_shop_for_all(world: World, closed: Closed, tmp_path: Path) -> None:
    address = f"{COVERS}/books_toscrape/ab/{COVER}.thumbnail.webp"
    problem(closed.client.get(address), 401)
    for who in (closed.cookie, closed.token):
        answer = closed.client.get(address, headers=who)
        assert (answer.content, answer.headers["cache-control"]) == (b"RIFF", "private, max-age=31536000, immutable")
    problem(closed.client.get(f"{COVERS}/nothing", headers=closed.token), 404)
    folder = tmp_path / "covers" / "books_toscrape" / "ab"
    folder.mkdir(parents=True)
    (folder / f"{COVER}.thumbnail.webp").write_bytes(b"RIFF")
    with given.serving(create_app(given.settings(tmp_path), world.database_url, world.tracking_uri)) as client:
        assert client.get(address).headers["cache-control"].startswith("public")
