"""HEAD: what GET would say, without saying it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, ids_of
from serving.app import create_app

world, client = given.world, given.client

OF_THE_MOMENT = {"date", "x-request-id", "ratelimit", "last-modified"}


@pytest.fixture(scope="module")
def keeping(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API that keeps and composes answers, counts requests, and knows another site."""
    settings = given.settings(
        tmp_path_factory.mktemp("home"), answer_cache_mb=8, anonymous_per_minute=500, cors_origins="http://shop.example"
    )
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: client.get("/ready").is_success)
        yield client


def lasting(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in OF_THE_MOMENT}


@pytest.mark.parametrize("packing", ["identity", "gzip"])
def test_every_route_tells_head_what_it_tells_get(world: World, keeping: httpx.Client, packing: str) -> None:
    book_id = str(ids_of(world)[0])
    paths = [
        path.replace("{book_id}", book_id) for path, methods in keeping.get("/openapi.json").json()["paths"].items()
    ]
    paths += ["/books/search?q=whale", "/books?limit=0", "/books/999999", "/nothing", "/", "/static/style.css"]
    paths += [
        "/catalogue",
        f"/catalogue/{book_id}",
        "/catalogue?q=whale",
        "/catalogue/999999",
        "/docs",
        "/openapi.json",
    ]
    sizes = set()
    for path in set(paths) - {"/metrics", "/ready"}:  # which say something else each time
        headers = {"accept-encoding": packing}
        whole = keeping.get(path, headers=headers)
        for _ in range(2):  # the second from memory
            head = keeping.head(path, headers=headers)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            assert lasting(head) == lasting(whole), path
        sizes.add(whole.headers["content-length"])
    assert len(sizes) > 10


def test_head_is_answered_by_what_a_client_has_already_and_counted_as_what_it_is(
    world: World, keeping: httpx.Client
) -> None:
    path = f"/books/{ids_of(world)[0]}/recommendations"
    tag = keeping.head(path).headers["etag"]
    assert keeping.head(path, headers={"if-none-match": tag}).status_code == 304
    left = [int(keeping.head(path).headers["ratelimit"].split("r=")[1].split(";")[0]) for _ in range(2)]
    assert left[1] <= left[0]
    counted = 'bookclub_http_request_seconds_count{method="HEAD",route="/books/{book_id}/recommendations",status="304"}'
    assert counted in keeping.get("/metrics").text
    assert keeping.head("/health").is_success and keeping.head("/metrics").is_success


def test_head_of_an_export_ends_before_the_books_are_sent(world: World, tmp_path: Path) -> None:
    with given.serving(create_app(given.settings(tmp_path), world.database_url, world.tracking_uri)) as client:
        name = {"username": "header", "password": "four words of mine"}
        token = client.post("/register", json=name).json()["access_token"]
        for _ in range(8):  # more than may be under way at once
            head = client.head("/books/export?format=csv", headers={"authorization": f"Bearer {token}"})
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-type"] == "text/csv; charset=utf-8" and "etag" in head.headers


def test_what_takes_no_get_takes_no_head(keeping: httpx.Client) -> None:
    refused = keeping.head("/logout")
    assert (refused.status_code, refused.headers["allow"], refused.content) == (405, "POST", b"")


def test_another_site_may_ask_for_heads(keeping: httpx.Client) -> None:
    asked = {"origin": "http://shop.example", "access-control-request-method": "HEAD"}
    allowed = keeping.options("/books", headers=asked | {"access-control-request-headers": "authorization"})
    assert allowed.is_success and "HEAD" in allowed.headers["access-control-allow-methods"]
