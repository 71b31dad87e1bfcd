"""What a reader's browser gets: shelves, books, covers, and faults told in a page."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from bookclub_platform.core import tables
from bookclub_platform.core.covers import name_path
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of
from serving.app import create_app

world, client, after = given.world, given.client, given.after

NOWHERE = "postgresql://nobody@127.0.0.1:1/bookclub"


def page(client: httpx.Client, path: str, status: int = 200) -> str:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


def links(text: str) -> list[int]:
    return [int(number) for number in re.findall(r'href="/catalogue/([0-9]+)"', text)]


def test_the_front_door_leads_to_the_shelves(client: httpx.Client) -> None:
    answer = client.get("/", follow_redirects=True)
    assert answer.url.path == "/catalogue"
    assert "All books" in answer.text


def test_from_page_to_page_a_reader_sees_every_book_once(client: httpx.Client) -> None:
    address, seen = "/catalogue?category=&in_stock=true", []  # as the form sends it
    while True:
        text = page(client, address)
        seen += links(text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        if following is None:
            break
        address = html.unescape(following[1])
    in_stock = get(client, "/books", in_stock=True, limit=100)["items"]
    assert seen == [book["id"] for book in in_stock]


@pytest.mark.parametrize("order", ["price", "-price", "-rating", "title", "-first_seen"])
def test_in_every_order_the_pages_show_every_book_once_and_say_which(client: httpx.Client, order: str) -> None:
    expected = [book["id"] for book in get(client, "/books", sort=order, min_rating=2, limit=100)["items"]]
    first = page(client, f"/catalogue?category=&sort={order}&min_rating=2")
    assert f"1 to 24 of {len(expected)}" in first and "First page" not in first
    (following,) = re.findall(r'rel="next" href="([^"]+)"', first)
    second = page(client, html.unescape(following))
    assert links(first) + links(second) == expected
    assert f"25 to {len(expected)} of {len(expected)}" in second and 'content="noindex"' in second
    (back,) = re.findall(r'href="([^"]+)">First page', second)
    assert links(page(client, html.unescape(back))) == links(first)


def test_a_page_of_another_order_is_the_first_of_this_one(client: httpx.Client) -> None:
    (following,) = re.findall(r'cursor=([^&"]+)', page(client, "/catalogue?sort=price"))
    assert links(page(client, f"/catalogue?sort=title&cursor={following}")) == links(
        page(client, "/catalogue?sort=title")
    )


def test_a_book_says_what_it_is_to_who_links_to_it(world: World) -> None:
    book_id = ids_of(world)[2]
    book = get(world.client, f"/books/{book_id}")
    text = page(world.client, f"/catalogue/{book_id}?from=x")
    told = dict(re.findall(r'<meta (?:property|name)="([a-z:]+)" content="([^"]*)"', text))
    base = str(world.client.base_url).rstrip("/")
    assert told["og:title"] == book["title"] and told["description"] == told["og:description"] == book["description"]
    assert told["og:url"] == f"{base}/catalogue/{book_id}" and f'<link rel="canonical" href="{told["og:url"]}">' in text
    assert f"<title>{book['title']} " in text


def test_a_shelf_shows_its_category_alone(world: World) -> None:
    text = page(world.client, "/catalogue?category=sea")
    assert links(text) == ids_of(world, "sea")
    assert "12 books" in text


def test_a_book_is_shown_with_the_books_that_the_api_recommends(world: World) -> None:
    book_id = ids_of(world)[2]
    text = page(world.client, f"/catalogue/{book_id}")
    book = get(world.client, f"/books/{book_id}")
    recommended = get(world.client, f"/books/{book_id}/recommendations", limit=8)["items"]
    assert book["title"] in text and f"£{book['price']:.2f}" in text and book["description"] in text
    assert links(text) == [item["book"]["id"] for item in recommended]
    assert f"<span>{recommended[0]['why'][0]['value']}</span>" in text


def test_what_a_shop_writes_is_shown_and_never_run(after: World) -> None:
    hostile = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    books = given.catalogue()["sea"]
    books[0] = replace(books[0], title=hostile, description=hostile, category_name=hostile, url="javascript:alert(1)")
    given.load(after.database_url, "sea", books)
    (row,) = (row for row in given.read(after.database_url, tables.select_books("sea")) if row.title == hostile)
    for address in ("/catalogue?category=sea", f"/catalogue/{row.id}"):
        text = page(after.client, address)
        assert "<script" not in text and "<img" not in text and "javascript:" not in text
        assert html.escape(hostile) in text.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")


def test_an_address_that_is_none_is_told_in_a_page(client: httpx.Client) -> None:
    assert "No such book" in page(client, "/catalogue/999999", 404)
    for wrong in (
        "/catalogue/0",
        "/catalogue/no/such",
        "/catalogue?sort=fate",
        "/catalogue/99999999999999999999",
        "/catalogue/x",
        "/catalogue?category=%00",
    ):
        assert "No such page" in page(client, wrong, 404)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[httpx.Client]:
    """No database, no registry."""
    with given.serving(create_app(given.settings(tmp_path), NOWHERE, "http://127.0.0.1:1")) as client:
        yield client


def test_without_a_database_the_page_asks_for_patience(bare: httpx.Client) -> None:
    assert "try again" in page(bare, "/catalogue", 503)


def test_without_a_model_a_book_is_still_shown(world: World, tmp_path: Path) -> None:
    app = create_app(given.settings(tmp_path), world.database_url, "http://127.0.0.1:1")
    with given.serving(app) as client:
        assert "None yet" in page(client, f"/catalogue/{ids_of(world)[0]}")


def test_a_cover_comes_from_our_own_shelf_and_is_seen_as_soon_as_it_lies_there(after: World, tmp_path: Path) -> None:
    books = given.catalogue()["sea"]
    books[0] = replace(books[0], image_url="http://shop.example/1.jpg")
    given.load(after.database_url, "sea", books)
    with given.serving(create_app(given.settings(tmp_path), after.database_url, after.tracking_uri)) as client:
        assert "<img" not in page(client, "/catalogue?category=sea")
        digest = "ab" * 32
        folder = tmp_path / "covers" / "books_toscrape"
        (folder / "ab").mkdir(parents=True)
        (folder / "ab" / f"{digest}.thumbnail.webp").write_bytes(b"RIFF")
        for name in ("index.jsonl", f"ab/{digest}.jpg", f"ab/{digest}.thumbnail.webp.7.part"):
            (folder / name).write_bytes(b"not for readers")
        name_path(folder, f"{books[0].image_url}").parent.mkdir(parents=True)
        name_path(folder, f"{books[0].image_url}").write_text(digest)
        (address,) = re.findall(r'<img class="cover" src="([^"]+)"', page(client, "/catalogue?category=sea"))
        answer = client.get(address)
        assert answer.content == b"RIFF" and "immutable" in answer.headers["cache-control"]
        others = ["../../settings", "index.jsonl/../../settings"]
        others += [
            f"books_toscrape/{path.relative_to(folder).as_posix()}" for path in folder.rglob("*") if path.is_file()
        ]
        others.remove(address.removeprefix("/catalogue/covers/"))
        assert len(others) == 6 and {client.get(f"/catalogue/covers/{other}").status_code for other in others} == {404}


def test_pages_load_their_style_and_nothing_from_elsewhere(client: httpx.Client) -> None:
    text = page(client, "/catalogue")
    for kind, content in (("stylesheet", "text/css"), ("icon", "image/svg+xml")):
        (address,) = re.findall(rf'<link rel="{kind}" href="([^"]+)"', text)
        answer = client.get(address)
        assert answer.headers["content-type"].startswith(content) and "immutable" in answer.headers["cache-control"]
        assert client.get(address.partition("?")[0]).headers["cache-control"] == "no-cache"
    assert re.findall(r'(?:src|href)="(?![/#])', text) == []
