"""What the developer of an app relies on past the bodies of answers: refusals by name, quotas, codings, exports."""

from __future__ import annotations

import gzip
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.app import create_app

world = given.world

PASSWORD = "four words of mine"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


class App(NamedTuple):
    """An API with quotas that puts answers together from memory, and the token of an account."""

    client: httpx.Client
    token: dict[str, str]


@pytest.fixture(scope="module")
def app(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    limits = {"anonymous_per_minute": 900, "account_per_minute": 800, "logins_per_minute": 3, "feedback_per_day": 5}
    settings = given.settings(tmp_path_factory.mktemp("home"), answer_cache_mb=8, **limits)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: client.get("/ready").is_success)
        made = client.post("/register", json={"username": "app", "password": PASSWORD}).json()
        yield App(client, {"authorization": f"Bearer {made['access_token']}"})


def faults(answer: httpx.Response) -> list[tuple[list[str], str]]:
    """Where the request is wrong, and how."""
    return [(fault["loc"], fault["code"]) for fault in problem(answer, 422)["errors"]]


def test_every_route_refuses_a_parameter_that_it_does_not_know(world: World, app: App) -> None:
    book_id, paths = str(ids_of(world)[0]), get(app.client, "/openapi.json")["paths"]
    for path, operations in paths.items():
        for method in operations:
            at = path.format(book_id=book_id, segment_id="1-1", crawl_id=uuid.uuid4())
            answer = app.client.request(method, f"{at}?colour=red", headers=app.token)
            assert faults(answer) == [(["query", "colour"], "extra_forbidden")], path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/books?category=sea&category=space", "category"),
        ("/books?limit=3&limit=3", "limit"),
        ("/books/search?q=whale&q=comet", "q"),
        ("/books/{}/recommendations?exclude=1&exclude=2&max_price=9&max_price=12", "max_price"),
    ],
)
def test_a_parameter_that_comes_twice_is_refused_unless_it_is_a_list(
    world: World, app: App, path: str, name: str
) -> None:
    book_id = ids_of(world)[0]
    for client in (app.client, world.client):
        assert faults(client.get(path.format(book_id))) == [(["query", name], "repeated")]
        assert client.get(f"/books/{book_id}/recommendations?exclude=1&exclude=2").is_success


@pytest.mark.parametrize("blank", [" ", "\u3000", "\u2028 ", "\x85\xa0"])
def test_blanks_are_nothing_to_search_for(world: World, blank: str) -> None:
    refused = world.client.get("/books/search", params={"q": blank})
    assert faults(refused) == [(["query", "q"], "string_pattern_mismatch")]
    refused = world.client.post("/recommendations", json={"text": blank})
    assert faults(refused) == [(["body", "text"], "string_pattern_mismatch")]
    assert get(world.client, "/books/search", q=" whale ")["items"]
    assert world.client.get("/catalogue", params={"q": " "}).is_success


def test_a_body_that_is_no_json_is_wrong_as_a_whole_and_says_at_which_character(world: World) -> None:
    broken = world.client.post("/predict", content='{"book_id": 1,}', headers={"content-type": JSON})
    assert faults(broken) == [(["body"], "json_invalid")]
    assert "at character 14" in broken.json()["detail"]
    twice = {"events": [{"kind": "liked"}]}
    token = world.client.post("/register", json={"username": "faulty", "password": PASSWORD}).json()["access_token"]
    found = faults(world.client.post("/feedback", json=twice, headers={"authorization": f"Bearer {token}"}))
    assert (["body", "events", "0", "book_id"], "missing") in found


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [("/predict", JSON, b'{"book_id": 1}'), ("/login", FORM, b"username=app&password=four+words+of+mine")],
)
def test_a_packed_body_is_refused_with_what_to_do(world: World, path: str, kind: str, body: bytes) -> None:
    headers = {"content-type": kind, "content-encoding": "gzip"}
    refused = world.client.post(path, content=gzip.compress(body), headers=headers)
    assert "Send it uncompressed" in problem(refused, 415)["detail"]
    assert refused.headers["accept-encoding"] == "identity"
    plain = world.client.post(path, content=body, headers=headers | {"content-encoding": "identity"})
    assert plain.status_code in {200, 401, 404}


def test_caches_are_told_that_packed_and_unpacked_answers_differ_where_nothing_changed_too(
    world: World, app: App
) -> None:
    for client in (app.client, world.client):
        for path in (f"/books/{ids_of(world)[0]}/recommendations", "/books"):
            tag = client.get(path).headers["etag"]
            for _ in range(2):
                held = client.get(path, headers={"if-none-match": tag})
                assert (held.status_code, held.headers["vary"]) == (304, "Authorization, Accept-Encoding"), path


def policies(answer: httpx.Response) -> list[str]:
    return [policy.split(";")[0].strip('"') for policy in answer.headers["ratelimit-policy"].split(", ")]


def events(count: int, **more: Any) -> dict[str, Any]:
    one = {"kind": "liked", "recommendation_id": "tfidf_model/1@1", "book_id": 1} | more
    return {"events": [one | {"event_id": str(uuid.uuid4())} for _ in range(count)]}


def test_feedback_tells_how_much_of_the_day_is_left_whatever_comes_of_it(world: World, app: App) -> None:
    def left(sent: dict[str, Any], status: int) -> str:
        answer = app.client.post("/feedback", json=sent, headers=app.token)
        assert answer.status_code == status and policies(answer) == ["account", "feedback"]
        return answer.headers["ratelimit"].split(", ")[1].rpartition(";")[0]

    recommended = get(app.client, f"/books/{ids_of(world)[0]}/recommendations")
    good = {"recommendation_id": recommended["id"], "book_id": recommended["items"][0]["book"]["id"]}
    assert left(events(2, **good), 200) == '"feedback";r=3'
    assert left(events(1, **good | {"book_id": 999_999}), 404) == '"feedback";r=3'
    assert left(events(4, **good), 429) == '"feedback";r=3'


def test_who_is_beyond_the_quota_of_wrong_passwords_is_told_of_that_one(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time() + 120  # whatever was asked before
    monkeypatch.setattr(time, "time", lambda: now)
    for _ in range(3):
        wrong = app.client.post("/login", data={"username": "app", "password": "not mine"})
        assert (wrong.status_code, policies(wrong)) == (401, ["login"])
    now += 70  # the quota of logins is whole again
    refused = app.client.post("/login", data={"username": "app", "password": PASSWORD})
    assert problem(refused, 429)["violated-policies"] == ["login-name"]
    assert policies(refused) == ["login", "login-name"]
    assert refused.headers["ratelimit"].split(", ")[1].startswith('"login-name";r=0')


def test_an_export_says_how_many_books_come_and_that_there_are_no_parts(world: World, app: App) -> None:
    def export(**asked: Any) -> httpx.Response:
        return app.client.get("/books/export", params=asked, headers=app.token | {"range": "bytes=0-9"})

    whole = export()
    lines = whole.content.splitlines()
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "none")
    assert whole.headers["bookclub-books"] == str(len(lines)) == "48"
    tenth = json.loads(lines[9])["id"]
    assert export(after=tenth).headers["bookclub-books"] == "38"
    assert "bookclub-books" not in export(with_delisted=True).headers
