"""What HTTP promises clients that trust it: parts of a problem, caches, methods, and what counts against a quota."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, problem
from serving.answers import versions
from serving.routes import routers

world = given.world
MEDIA_TYPE = "application/problem+json"


def raw(client: httpx.Client, request: bytes) -> bytes:
    """The head and body of the response to these bytes; the server closes the connection."""
    address = urlsplit(str(client.base_url))
    answer = b""
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(request)
        while more := connection.recv(65536):
            answer += more
    return answer


def kinds_of(described: dict[str, Any]) -> set[str]:
    return {*described.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})}


def test_a_route_documents_the_problems_of_its_group_beside_its_own() -> None:
    for router, _ in routers():
        for route in router.routes:
            for status, described in router.responses.items():
                own = route.responses.get(status, {})  # type: ignore[attr-defined]
                assert kinds_of(described) <= kinds_of(own), (route.path, status)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("request_line", "status", "told"),
    [
        ("GET /books/search?q=café HTTP/1.1", 400, "percent-encoded"),
        ("NOSUCH / HTTP/1.1", 400, "not a valid HTTP request"),
    ],
)
def test_what_is_no_http_is_refused_with_an_id_for_questions(
    world: World, request_line: str, status: int, told: str
) -> None:
    head, body = raw(world.client, f"{request_line}\r\nHost: shop\r\n\r\n".encode()).split(b"\r\n\r\n", 1)
    assert int(head.split()[1]) == status and told.encode() in body, body
    assert b"\r\nx-request-id: " in head and b'"instance"' not in body


def test_the_instance_of_a_problem_is_a_reference_as_uris_are(world: World) -> None:
    refused = world.client.get("/books/a%20b%3Fx%22%C3%A9")
    assert problem(refused, 422)["instance"] == "/books/a%20b%3Fx%22%C3%A9"


def test_an_unknown_parameter_is_told_with_those_that_are_known(world: World) -> None:
    (fault,) = problem(world.client.get("/books/search?q=sea&limt=3"), 422)["errors"]
    assert fault["msg"].startswith("Unknown parameter. This route knows category, cursor, facets")
    (fault,) = problem(world.client.get("/categories?_=1"), 422)["errors"]
    assert fault["msg"] == "Unknown parameter. This route has no parameters"
    (fault,) = problem(world.client.get("/books?limit=abc"), 422)["errors"]
    assert fault["code"] == "int_parsing"


def test_a_body_that_cannot_be_read_is_told_so(world: World) -> None:
    for body in (b'{"book_id": "\xff"}', b"[" * 50_000):
        refused = world.client.post("/predict", content=body, headers={"content-type": "application/json"})
        assert "not UTF-8, or nested too deeply" in problem(refused, 400)["detail"]


def test_a_path_of_files_names_the_methods_that_it_takes(world: World) -> None:
    refused = world.client.post("/static/style.css")
    assert refused.headers["allow"] == "GET, HEAD" and "only GET, HEAD." in problem(refused, 405)["detail"]


def test_caches_are_told_what_a_304_varies_with(world: World) -> None:
    whole = world.client.get("/openapi.json")
    again = world.client.get("/openapi.json", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.headers["vary"]) == (304, whole.headers["vary"])


@pytest.mark.parametrize("path", ["/books", "/stats/overview", "/openapi.json", "/model"])
def test_several_known_tags_may_be_sent_in_several_lines(world: World, path: str) -> None:
    for _ in range(2):  # the second time from memory
        tag = world.client.get(path).headers["etag"]
        again = world.client.get(path, headers=[("if-none-match", '"other"'), ("if-none-match", tag)])
        assert again.status_code == 304


def test_after_an_upgrade_nobody_is_told_that_the_response_is_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/stats/overview"
    held = {"if-none-match": world.client.get(path).headers["etag"]}
    assert world.client.get(path, headers=held).status_code == 304
    monkeypatch.setattr(versions, "_RELEASE", "another")
    assert world.client.get(path, headers=held).status_code == 200


def test_the_pages_of_the_catalogue_let_browsers_name_the_origin_of_their_forms(world: World) -> None:
    for path in ("/catalogue", "/catalogue/login"):
        assert world.client.get(path).headers["referrer-policy"] == "same-origin"
    assert world.client.get("/books").headers["referrer-policy"] == "no-referrer"
