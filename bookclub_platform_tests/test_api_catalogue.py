"""Pages in every order, facets, histories, statistics, exports and feedback, over real HTTP on a real Postgres."""

from __future__ import annotations

import hashlib
import itertools
import re
import statistics
import uuid
from dataclasses import replace
from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform.core import accounts, passwords, tables
from bookclub_platform.core.browse import Position
from bookclub_platform.core.feedback import feedback
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.answers import composed, kept
from serving.http.digits import MAX_ID
from serving.schemas.cursor import BY_ID, DecodedCursor, decode, encode

world, after = given.world, given.after

SORTS = ["id", "price", "-price", "rating", "-rating", "title", "-first_seen"]
ODD_TITLES = ["Ünder", "under the Hill", "UNDER THE HILL", "z" * 3000, "'quoted'", "名前", "\U0001f4da books", "Ä"]

ODD_DESCRIPTION = 'Lines\u2028that\u2029end\x85where \\u2028 "JSON" has none.'


@pytest.fixture(scope="module")
def odd(world: World) -> World:
    """The world with eight books more: without stars, of equal price, with titles that sort in strange ways."""
    example = given.catalogue()["sea"][0]
    books = [
        replace(
            example,
            source_id=f"odd-{n}",
            title=title,
            category="odd",
            category_name="Odd",
            rating=None if n % 2 else 3,
            price=Decimal("99.99") if n < 6 else Decimal(0),
            stock=None,
            url=f"http://127.0.0.1/odd/{n}",
            description=ODD_DESCRIPTION,
        )
        for n, title in enumerate(ODD_TITLES)
    ]
    given.load(world.database_url, "odd", books)
    return world


def all_pages(client: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    pages = [get(client, "/books", **query)]
    while pages[-1]["next"]:
        pages.append(get(client, "/books", **query, cursor=pages[-1]["next"]))
    assert {page["total"] for page in pages} == {sum(len(page["items"]) for page in pages)}
    return [book for page in pages for book in page["items"]]


def place(book: dict[str, Any], sort: str) -> tuple[Any, ...]:
    """Where a book belongs, by what the documentation says and not by what Postgres thinks."""
    match sort:
        case "id":
            return (book["id"],)
        case "price":
            return book["price"], book["id"]
        case "-price":
            return -book["price"], -book["id"]
        case "rating":
            return book["rating"] or 6, book["id"]
        case "-rating":
            return -(book["rating"] or 0), -book["id"]
        case "title":
            return book["title"].lower()[:100].encode(), book["id"]
    return tuple(-ord(sign) for sign in book["first_seen_at"]), -book["id"]


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("limit", [1, 7])
def test_pages_of_every_order_are_the_whole_catalogue_once_ties_and_nulls_too(
    odd: World, sort: str, limit: int
) -> None:
    found = all_pages(odd.client, sort=sort, limit=limit)
    assert len(found) == len({book["id"] for book in found}) == 56
    assert found == sorted(found, key=lambda book: place(book, sort))


def test_a_page_goes_on_where_it_ended_although_books_before_it_changed(odd: World) -> None:
    first = get(odd.client, "/books", sort="-price", category="sea", limit=4)
    books = given.catalogue()["sea"]
    given.load(odd.database_url, "sea", [replace(books[11], price=Decimal(1)), *books[:11]])
    rest = get(odd.client, "/books", sort="-price", category="sea", limit=20, cursor=first["next"])["items"]
    given.load(odd.database_url, "sea", books)
    assert [book["source_id"] for book in rest] == [f"sea-{n}" for n in (7, 6, 5, 4, 3, 2, 1, 0, 11)]


@pytest.mark.parametrize("cursor", ["20", "20.p1", "20.P0999999999", "20.R0", "20.t", "20.tff", "20.t00", "20.F0"])
def test_a_cursor_of_another_order_is_refused_and_a_made_up_one_is_a_place_like_any_other(
    odd: World, cursor: str
) -> None:
    answers = {sort: odd.client.get("/books", params={"sort": sort, "cursor": cursor}) for sort in SORTS}
    statuses = sorted(answer.status_code for answer in answers.values())
    if cursor in {"20.tff"}:
        assert statuses == [422] * 7
    else:
        assert statuses == [200] + [409] * 6
        assert problem(answers["title" if ".t" not in cursor else "price"], 409)["type"].endswith(":other-order")


@pytest.mark.parametrize("book_id", [1, 10**15 - 1, 10**15, MAX_ID])
def test_every_id_that_a_book_may_have_comes_back_from_a_cursor_and_an_address(book_id: int) -> None:
    place = DecodedCursor("price", Position(book_id, Decimal("12.50")), "5f3c9a1e")
    assert decode(encode(place.sort, place.after, place.mark)) == place
    by_id = encode("id", Position(book_id), "5f3c9a1e")
    assert decode(by_id).after.book_id == book_id and re.fullmatch(BY_ID, by_id)
    assert kept._KEPT.fullmatch(f"/books/{book_id}") and composed._ASKED.fullmatch(f"/books/{book_id}")


def test_a_cursor_of_other_filters_is_refused_and_one_given_out_before_still_goes_on(odd: World) -> None:
    lists: list[dict[str, Any]] = [{}, {"category": "sea"}, {"in_stock": True}, {"in_stock": False}, {"max_price": 20}]
    for sort in ("id", "price"):
        following = [get(odd.client, "/books", sort=sort, limit=3, **chosen)["next"] for chosen in lists]
        for (at, cursor), (other, chosen) in itertools.product(enumerate(following), enumerate(lists)):
            answer = odd.client.get(
                "/books", params={"sort": sort, "cursor": cursor, "limit": 50, "facets": True} | chosen
            )
            if at == other:
                assert answer.status_code == 200
            else:
                assert problem(answer, 409)["type"].endswith(":other-filters"), (cursor, chosen)
        same = [
            get(odd.client, "/books", sort=sort, cursor=following[4], max_price=price) for price in (20, 20.0, "2e1")
        ]
        plain = get(odd.client, "/books", sort=sort, cursor=following[4].partition("-")[0], max_price=20)
        assert all(page == plain for page in same) and plain["items"]


def test_filters_join_and_hold_for_items_total_and_cursor_alike(odd: World) -> None:
    everything = all_pages(odd.client, limit=100)
    for least, most, stars, stock in itertools.product([None, "11.10"], [None, "15.1"], [None, 3], [None, True, False]):
        query = {
            "min_price": least,
            "max_price": most,
            "min_rating": stars,
            "in_stock": stock,
            "source": "books_toscrape",
        }
        asked = {name: value for name, value in query.items() if value is not None}
        expected = [
            book["id"]
            for book in everything
            if (least is None or book["price"] >= float(least))
            and (most is None or book["price"] <= float(most))
            and (stars is None or (book["rating"] or 0) >= stars)
            and (stock is None or book["in_stock"] == stock)
        ]
        assert [book["id"] for book in all_pages(odd.client, limit=9, **asked)] == expected
    assert get(odd.client, "/books", source="no-such")["total"] == 0
    assert get(odd.client, "/books", min_price=20, max_price=10)["items"] == []


def test_each_facet_counts_what_its_choices_would_leave(odd: World) -> None:
    query = {"category": "sea", "min_rating": 3, "max_price": "19.99"}
    facets = get(odd.client, "/books", facets=True, **query)["facets"]
    for row in facets["category"]:
        assert row["books"] == get(odd.client, "/books", **query | {"category": row["category"]})["total"]
    for row in facets["price"]:
        ends = {name: row[name] for name in ("min_price", "max_price") if row[name] is not None}
        rest = {name: value for name, value in query.items() if name != "max_price"}
        assert row["books"] == get(odd.client, "/books", **rest | ends)["total"]
    for row in facets["in_stock"]:
        assert row["books"] == get(odd.client, "/books", **query | {"in_stock": row["in_stock"]})["total"]
    assert (
        sum(row["books"] for row in facets["rating"])
        == get(odd.client, "/books", category="sea", max_price=19.99)["total"]
    )
    stars = get(odd.client, "/books", facets=True)["facets"]["rating"]
    assert [row["rating"] for row in stars] == [5, 4, 3, 2, 1, None] and stars[-1]["books"] == 4
    assert get(odd.client, "/books")["facets"] is None


def test_what_is_counted_in_memory_is_what_postgres_counts(odd: World) -> None:
    def is_ranked() -> bool:
        answer = get(odd.client, f"/books/{ids_of(odd)[0]}/recommendations")
        return bool(answer["ranked_data_version"] == answer["data_version"])

    given.wait_for(is_ranked)
    for category, least, most, stars, stock in itertools.product(
        [None, "sea", "odd", "nothing"], [None, "12.1"], [None, "16.1", "11"], [None, 3], [None, True]
    ):
        query = {"category": category, "min_price": least, "max_price": most, "min_rating": stars, "in_stock": stock}
        asked = {name: value for name, value in query.items() if value is not None} | {"facets": True, "limit": 1}
        # All are of one shop; which that is, only Postgres knows.
        counted = get(odd.client, "/books", **asked, source="books_toscrape")
        found = get(odd.client, "/books", **asked)
        assert (found["total"], found["facets"]) == (counted["total"], counted["facets"]), asked


def test_a_history_has_a_state_for_each_change_and_none_for_a_mere_sighting(odd: World) -> None:
    books = given.catalogue()["sea"]
    book_id = next(
        row.id for row in given.read(odd.database_url, tables.select_books("sea")) if row.source_id == "sea-5"
    )
    before = get(odd.client, f"/books/{book_id}/history")
    tag = odd.client.get(f"/books/{book_id}/history").headers["etag"]
    given.load(
        odd.database_url, "sea", [replace(b, price=Decimal("5.5")) if b.source_id == "sea-5" else b for b in books]
    )
    given.load(odd.database_url, "sea", books)
    after = odd.client.get(f"/books/{book_id}/history", headers={"if-none-match": tag})
    assert after.status_code == 200
    states = after.json()["items"]
    assert len(states) == len(before["items"]) + 2 and after.json()["currency"] == "GBP"
    assert [state["price"] for state in states[-3:]] == [15.1, 5.5, 15.1]
    assert [state["previous_price"] for state in states[-2:]] == [15.1, 5.5]
    assert [a["held_until"] for a in states[:-1]] == [b["held_from"] for b in states[1:]]
    assert states[-1]["held_until"] is None
    problem(odd.client.get("/books/999999/history"), 404)


def test_the_figures_are_those_of_the_books_themselves(odd: World) -> None:
    books = all_pages(odd.client, limit=100)
    overview = get(odd.client, "/stats/overview")
    prices = [book["price"] for book in books]
    assert overview["prices"]["median"] == pytest.approx(statistics.median(prices))
    assert overview["prices"]["mean"] == pytest.approx(statistics.mean(prices))
    quartiles = statistics.quantiles(prices, n=4, method="inclusive")
    assert [overview["prices"][f"{name}_quartile"] for name in ("lower", "upper")] == [quartiles[0], quartiles[2]]
    assert [row["books"] for row in overview["ratings"]["counts"]] == [
        sum(book["rating"] == stars for book in books) for stars in (1, 2, 3, 4, 5, None)
    ]
    rated = [(book["price"], book["rating"]) for book in books if book["rating"]]
    assert overview["price_rating_correlation"] == pytest.approx(statistics.correlation(*zip(*rated, strict=True)))
    assert overview["stock"]["in_stock"] + overview["stock"]["sold_out"] == overview["books"] == 56
    assert sum(row["books"] for row in overview["price_bands"]) == 56
    assert (overview["categories"], overview["sources"]) == (5, ["books_toscrape"])

    by_category = get(odd.client, "/stats/categories")
    assert [row["category"] for row in by_category["items"]] == ["crime", "garden", "odd", "sea", "space"]
    for row in by_category["items"]:
        own = [book for book in books if book["category"] == row["category"]]
        assert (row["books"], row["prices"]["min"]) == (len(own), min(book["price"] for book in own))
        assert row["stock"]["copies"] == sum(book["stock"] or 0 for book in own)
    assert by_category["items"][2]["ratings"]["mean"] == 3


def test_who_has_an_answer_is_told_so_until_something_changes(odd: World) -> None:
    book_id = ids_of(odd)[0]
    paths = ["/books?limit=3", f"/books/{book_id}", "/categories", "/stats/overview", "/stats/categories"]
    paths.append("/books/search?q=comet")
    for path in paths:
        first = odd.client.get(path)
        assert first.headers["cache-control"] == "public, no-cache"
        again = odd.client.get(path, headers={"if-none-match": f'"other", {first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        for name in ("etag", "cache-control", "bookclub-data-version", "bookclub-model"):
            assert again.headers[name] == first.headers[name], (path, name)
    tags = {path: odd.client.get(path).headers["etag"] for path in paths}
    assert odd.client.get("/books?limit=4").headers["etag"] != tags["/books?limit=3"]
    changed = given.catalogue()["space"]
    given.load(odd.database_url, "space", [replace(changed[0], price=Decimal(77)), *changed[1:]])
    fresh = {path: odd.client.get(path, headers={"if-none-match": tag}) for path, tag in tags.items()}
    given.load(odd.database_url, "space", changed)
    assert {answer.status_code for answer in fresh.values()} == {200}
    assert fresh["/stats/overview"].json()["prices"]["max"] == 99.99
    assert odd.client.get("/books/999999").headers["cache-control"] == "no-store"


def test_who_knows_the_model_is_told_so_until_it_is_another(after: World) -> None:
    first = after.client.get("/model")
    assert first.headers["cache-control"] == "public, no-cache" and first.headers["vary"] == "Authorization"
    again = after.client.get("/model", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    after.registry.promote(after.sea)
    given.wait_for(lambda: given.model_version(after.client) == after.sea.version)
    other = after.client.get("/model", headers={"if-none-match": first.headers["etag"]})
    assert other.status_code == 200 and other.headers["etag"] != first.headers["etag"]


def test_answers_are_compressed_for_who_takes_it(odd: World) -> None:
    plain = odd.client.get("/books", headers={"accept-encoding": "identity"})
    packed = odd.client.get("/books", headers={"accept-encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.json()) == ("gzip", plain.json())
    assert int(packed.headers["content-length"]) < len(plain.content) / 3
    assert "accept-encoding" in packed.headers["vary"].lower()


# Export ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def token(odd: World) -> dict[str, str]:
    made = odd.client.post("/register", json={"username": "pandas", "password": "four words of mine"})
    return {"authorization": f"Bearer {made.json()['access_token']}"}


def test_feedback_is_kept_once_with_the_model_that_recommended(odd: World, token: dict[str, str]) -> None:
    problem(odd.client.get("/books/popular"), 404)
    asked, *others = ids_of(odd)
    answer = get(odd.client, f"/books/{asked}/recommendations")
    assert answer["id"] == f"tfidf_model/{odd.first.version}@{answer['data_version']}"
    events = [
        {"event_id": str(uuid.uuid4()), "kind": kind, "recommendation_id": answer["id"], "for_book_id": asked}
        | {"book_id": book_id, "position": 1, "seconds_ago": 5}
        for kind, book_id in [
            ("shown", others[0]),
            ("clicked", others[0]),
            ("liked", others[1]),
            ("clicked", others[1]),
        ]
    ]
    first = odd.client.post("/feedback", json={"events": events[:3]}, headers=token)
    assert first.json() == {"stored": 3, "known": 0}
    assert odd.client.post("/feedback", json={"events": events}, headers=token).json() == {"stored": 1, "known": 3}
    rows = given.read(odd.database_url, sa.select(feedback).order_by(feedback.c.received_at))
    assert {(row.kind, row.book_id) for row in rows} == {(event["kind"], event["book_id"]) for event in events}
    assert {(row.model, row.model_version, str(row.data_version)) for row in rows} == {
        ("tfidf_model", odd.first.version, answer["data_version"])
    }
    popular = get(odd.client, "/books/popular")["items"]
    assert [(row["book"]["id"], row["interest"]) for row in popular] == [(others[0], 1), (others[1], 1)]


def test_feedback_of_which_any_part_is_wrong_is_refused_as_a_whole(odd: World, token: dict[str, str]) -> None:
    event = {
        "event_id": str(uuid.uuid4()),
        "kind": "liked",
        "recommendation_id": f"tfidf_model/{odd.first.version}@1",
        "book_id": ids_of(odd)[0],
    }
    unknown = odd.client.post("/feedback", json={"events": [event, event | {"book_id": 999999}]}, headers=token)
    assert problem(unknown, 404)["book_ids"] == [999999]
    for wrong in (
        {"kind": "hated"},
        {"recommendation_id": "x"},
        {"position": 0},
        {"event_id": "7"},
        {"seconds_ago": -1},
    ):
        problem(odd.client.post("/feedback", json={"events": [event | wrong]}, headers=token), 422)
    problem(odd.client.post("/feedback", json={"events": [event]}), 401)
    kept = sa.select(feedback).where(feedback.c.event_id == uuid.UUID(event["event_id"]))
    assert given.read(odd.database_url, kept) == []


def test_a_shop_names_its_readers_if_the_operator_lets_it_and_a_hash_is_kept(odd: World, token: dict[str, str]) -> None:
    event = {
        "event_id": str(uuid.uuid4()),
        "kind": "liked",
        "recommendation_id": f"tfidf_model/{odd.first.version}@1",
        "book_id": ids_of(odd)[0],
        "reader": "reader-81f3",
    }
    refused = odd.client.post("/feedback", json={"events": [event]}, headers=token)
    assert "the scope readers" in problem(refused, 403)["detail"]
    assert 'scope="feedback readers"' in refused.headers["www-authenticate"]
    with sa.create_engine(odd.database_url, poolclass=sa.NullPool).begin() as connection:
        hashed = passwords.hash_password("four words of mine")
        shop = accounts.add_user(connection, "shop-server", hashed, ["read", "feedback", "readers"])
    login = {"username": "shop-server", "password": "four words of mine"}
    access = odd.client.post("/login", data=login).json()["access_token"]
    headers = {"authorization": f"Bearer {access}"}
    for wrong in ("", "x" * 65, "two\nlines", 7):
        problem(odd.client.post("/feedback", json={"events": [event | {"reader": wrong}]}, headers=headers), 422)
    told = odd.client.post("/feedback", json={"events": [event, event]}, headers=headers)
    assert told.json() == {"stored": 1, "known": 1}
    (row,) = given.read(odd.database_url, sa.select(feedback).where(feedback.c.user_id == shop))
    assert row.reader == hashlib.sha256(f"{shop}:reader-81f3".encode()).digest()


def test_ids_alone_are_those_of_the_recommendations(odd: World) -> None:
    asked = ids_of(odd)[0]
    full = get(odd.client, f"/books/{asked}/recommendations", limit=7)["items"]
    answer = odd.client.post("/predict", json={"book_id": asked, "limit": 7})
    assert answer.json() == {"book_id": asked, "ids": [item["book"]["id"] for item in full]}
    assert answer.headers["bookclub-model"] == f"tfidf_model/{odd.first.version}"
    problem(odd.client.post("/predict", json={"book_id": 999999}), 404)
