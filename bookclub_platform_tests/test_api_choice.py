"""Books that come, change and leave while the API serves, and what a caller may ask of a list: over real HTTP."""

from __future__ import annotations

import gc
import itertools
import json
import weakref
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from bookclub_platform.core import tables
from bookclub_platform.core.browse import IN_STOCK, Filters
from bookclub_platform.core.stock import fingerprint
from bookclub_platform.models import BookText, Tfidf
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.books.book_bytes import BookBytes
from serving.recommender import passing as filtering
from serving.recommender.lineup import Lineups
from serving.schemas.books import Book

world, after = given.world, given.after


def listed(world: World, book_id: int, **query: Any) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = get(world.client, f"/books/{book_id}/recommendations", **query)["items"]
    return [item["book"] for item in items]


def for_reader(world: World, **asked: Any) -> Any:
    answer = world.client.post("/recommendations", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ranked(world: World) -> Callable[[], bool]:
    """Whether the API ranks the newest state of the books."""
    path = f"/books/{ids_of(world)[0]}/recommendations"

    def is_so() -> bool:
        answer = get(world.client, path)
        return bool(answer["ranked_data_version"] == answer["data_version"])

    return is_so


# Books that come and go -----------------------------------------------------------------------------------------------


def test_a_new_book_is_recommended_within_seconds_with_the_scores_of_a_batch(after: World) -> None:
    sea = given.catalogue()["sea"]
    new = replace(sea[5], source_id="new", upc="new", title="The Kraken and the shipwreck", url="http://127.0.0.1/new")
    given.load(after.database_url, "sea", [*sea, new])
    given.wait_for(ranked(after), 5)
    rows = [BookText(*row) for row in given.read(after.database_url, tables.select_training_rows())]
    batch = after.models[after.first.version].fold(rows)
    book_id = max(row.id for row in rows)
    for asked in (book_id, ids_of(after)[5], ids_of(after, "crime")[0]):
        expected = batch.recommend(asked, 8)
        answer = get(after.client, f"/books/{asked}/recommendations", limit=8, in_stock=False)
        assert [item["book"]["id"] for item in answer["items"]] == [near.book_id for near in expected]
        assert np.allclose([item["score"] for item in answer["items"]], [near.score for near in expected], atol=1e-6)
        assert answer["reason"] is None
    assert book_id in [book["id"] for book in listed(after, ids_of(after)[5])]


def test_a_book_with_another_text_is_near_to_other_books(after: World) -> None:
    sea, space = given.catalogue()["sea"], given.catalogue()["space"]
    changed = replace(sea[1], title="The comet and the orbit", description=space[2].description)
    given.load(after.database_url, "sea", [sea[0], changed, *sea[2:]])
    given.wait_for(ranked(after))
    found = listed(after, ids_of(after)[1], limit=3)
    assert "space" in {book["category"] for book in found}


def test_a_book_that_is_sold_out_is_recommended_no_more_but_to_who_asks(after: World) -> None:
    asked = ids_of(after)[1]
    first = listed(after, asked)[0]
    sea = given.catalogue()["sea"]
    sold = [replace(book, stock=0, in_stock=False) if book.source_id == first["source_id"] else book for book in sea]
    given.load(after.database_url, first["category"], sold)
    assert first["id"] not in [book["id"] for book in listed(after, asked)]
    assert len(listed(after, asked)) == 10
    assert listed(after, asked, in_stock=False)[0]["id"] == first["id"]


def test_books_of_categories_that_the_model_was_not_taught_are_folded_in(after: World) -> None:
    after.registry.promote(after.sea)
    given.wait_for(lambda: given.model_version(after.client) == after.sea.version)
    answer = get(after.client, f"/books/{ids_of(after, 'crime')[0]}/recommendations")
    assert answer["model"]["version"] == after.sea.version and answer["items"]


def test_a_lineup_reads_texts_of_those_books_alone_that_the_model_lacks(world: World) -> None:
    lineups = Lineups(world.database_url)
    whole, sea = world.models[world.first.version], world.models[world.sea.version]
    lineup = lineups.of(whole)
    assert lineup.grown.fresh is None  # the fingerprints of Postgres are those of Python
    assert lineups.of(whole, lineup) is lineup
    fresh = lineups.of(sea).grown.fresh
    assert fresh is not None and len(fresh.book_ids) == 36
    assert lineup.stock is not None and set(lineup.stock.category[:12]) <= {fingerprint(name) for name in given.THEMES}
    lineups.close()


def test_a_lineup_takes_over_the_masks_of_the_one_before_with_what_has_changed(after: World) -> None:
    lineups, model = Lineups(after.database_url), after.models[after.first.version]
    asked = [
        IN_STOCK,
        IN_STOCK._replace(category="crime"),
        IN_STOCK._replace(max_price=Decimal(15)),
        Filters(min_rating=3),
    ]
    before = lineups.of(model)
    masks = [before.mask(filters) for filters in asked]
    sea = given.catalogue()["sea"]
    dearer = [replace(book, price=book.price + 20) if book.price < 15 else book for book in sea[:4]]
    sold = [replace(book, stock=0, in_stock=False) for book in sea[4:6]]
    given.load(after.database_url, "sea", [*dearer, *sold, *sea[6:]])
    newer = lineups.of(model, before)
    anew = lineups.of(model)
    lineups.close()
    assert newer is not before
    for filters, mask in zip(asked, masks, strict=True):
        taken = newer.at_hand(filters)
        assert taken is not None and (anew.at_hand(filters) is None) == (filters != IN_STOCK)
        expected = anew.mask(filters)
        assert taken.mask().may.tolist() == expected.may.tolist() and taken.digest == expected.digest
        is_another = filters in (asked[0], asked[2])  # what sells out passes the others as before
        assert (taken.digest != mask.digest) == is_another


def test_what_passes_as_a_column_passes_as_a_book(world: World) -> None:
    lineups = Lineups(world.database_url)
    stock = lineups.of(world.models[world.first.version]).stock
    lineups.close()
    books = {row.id: Book.model_validate(row) for row in given.read(world.database_url, tables.select_books())}
    assert stock is not None and stock.ids.tolist() == sorted(books)
    edges = [None, *sorted({Decimal(str(book.price)) for book in books.values()})[::3]]
    asked = itertools.product([None, "sea", "none"], edges, edges, [None, 2, 5], [None, True, False])
    passed = set()
    for category, low, high, stars, in_stock in asked:
        filters = Filters(category, None, low, high, stars, in_stock)
        expected = [book_id for book_id in sorted(books) if filtering.passes_book(books[book_id], filters)]
        assert stock.ids[filtering.passing(stock, filters)].tolist() == expected, filters
        passed.add(len(expected))
    assert {0, len(books)} < passed and len(passed) > 10


def test_what_is_read_ahead_is_every_listed_book_as_it_is_now_and_no_list_is_told_twice(after: World) -> None:
    model, known = after.models[after.first.version], {at for theme in given.THEMES for at in ids_of(after, theme)}
    lineups = Lineups(after.database_url, books=BookBytes(2**20), near_bytes=2**20)
    before = lineups.of(model)
    first = len(list(lineups.prepare(before)))
    sea = given.catalogue()["sea"]
    given.load(after.database_url, "sea", [replace(sea[0], price=sea[0].price + 1), *sea[1:]])
    newer = lineups.of(model, before)
    assert newer.near is before.near and newer.near is not None
    assert before.json.keys() == known and not newer.json
    assert len(list(lineups.prepare(newer))) < first
    assert before.json.keys() == newer.json.keys()
    prices = [[json.loads(lineup.json[at])["price"] for lineup in (before, newer)] for at in known]
    assert [round(new - old, 2) for old, new in prices if new != old] == [1]
    small = Lineups(after.database_url, books=BookBytes(2**12), near_bytes=2**20)
    lineup = small.of(model)
    list(small.prepare(lineup))
    assert not lineup.json and lineup.is_listed(ids_of(after)[0]) and not lineup.is_listed(10**9)
    lineups.close()
    small.close()


def test_a_lineup_that_nobody_holds_is_gone_at_once_and_its_model_with_it(world: World, tmp_path: Any) -> None:
    world.models[world.first.version].save(tmp_path)
    lineups = Lineups(world.database_url, near_bytes=2**20)
    lineup = lineups.of(Tfidf.load(tmp_path))
    lineups.close()
    assert lineup.near is not None
    lineup.near.of(ids_of(world)[0], 5, lineup.mask(IN_STOCK._replace(category="crime")))
    lineup.well_rated(IN_STOCK, 5)
    gone = weakref.ref(lineup), weakref.ref(lineup.grown.base)
    gc.disable()
    try:
        del lineup
        assert [one() for one in gone] == [None, None]
    finally:
        gc.enable()


def test_an_artifact_without_fingerprints_is_folded_anew(world: World, tmp_path: Any) -> None:
    model = world.models[world.first.version]
    model.save(tmp_path)
    older = Tfidf.load(tmp_path)
    older.prints_ = older.title_prints_ = np.zeros(len(older.book_ids), dtype=np.int64)
    lineups = Lineups(world.database_url)
    grown = lineups.of(older).grown
    lineups.close()
    for book_id in model.book_ids[:5].tolist():
        found, expected = grown.nearest(grown.probe([book_id]), 5), model.recommend(book_id, 5)
        assert np.allclose([near.score for near in found], [near.score for near in expected], atol=1e-6)


# What a list is to be like --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ({"category": "crime"}, lambda book: book["category"] == "crime"),
        ({"min_price": 12.1, "max_price": 15.1}, lambda book: 12.1 <= book["price"] <= 15.1),
        ({"min_rating": 4}, lambda book: book["rating"] >= 4),
        ({}, lambda book: book["in_stock"]),
        ({"in_stock": False, "category": "sea", "max_price": 14.1}, lambda book: book["price"] <= 14.1),
    ],
)
def test_a_filtered_list_is_the_whole_list_less_what_does_not_pass(
    world: World, query: dict[str, Any], holds: Callable[[Any], bool]
) -> None:
    asked = ids_of(world)[0]
    everything = listed(world, asked, limit=100, in_stock=False)
    wanted = [book["id"] for book in everything if holds(book) and (book["in_stock"] or "in_stock" in query)]
    if "in_stock" in query:
        wanted = [book["id"] for book in everything if book["category"] == "sea" and holds(book)]
    found = listed(world, asked, limit=5, **query)
    assert [book["id"] for book in found] == wanted[:5] and found
    batch = world.client.post("/recommendations:batch", json={"book_ids": [asked], "limit": 5} | query).json()
    assert [item["book"]["id"] for item in batch["results"][0]["items"]] == wanted[:5]


def test_excluded_books_are_replaced_by_the_next(world: World) -> None:
    asked = ids_of(world)[0]
    plain = [book["id"] for book in listed(world, asked, limit=8)]
    without = [book["id"] for book in listed(world, asked, limit=6, exclude=[plain[0], plain[3]])]
    assert without == [book_id for book_id in plain if book_id not in (plain[0], plain[3])]


def test_a_diverse_list_begins_with_the_nearest_and_goes_on_with_others(world: World) -> None:
    asked = ids_of(world)[0]
    plain, diverse = (listed(world, asked, limit=6, diversity=share) for share in (0, 0.8))
    assert plain[0] == diverse[0] and plain != diverse
    assert len({book["category"] for book in diverse}) >= len({book["category"] for book in plain})


def test_a_reader_of_several_books_gets_what_is_near_to_them_and_none_of_them(world: World) -> None:
    liked = [ids_of(world)[1], ids_of(world, "space")[1]]
    answer = for_reader(world, liked=liked, limit=10)
    found = [item["book"] for item in answer["items"]]
    assert len(found) == 10 and not {book["id"] for book in found} & set(liked)
    assert {"sea", "space"} <= {book["category"] for book in found}
    assert answer["model"]["version"] == world.first.version and answer["reason"] is answer["fallback"] is None
    for item in answer["items"]:
        assert sum(why["share"] for why in item["why"]) == pytest.approx(item["score"], abs=1e-6)


def test_a_text_finds_the_books_that_it_describes(world: World) -> None:
    found = for_reader(world, text="A comet, an astronaut and an engine in orbit", limit=4)["items"]
    assert [item["book"]["category"] for item in found] == ["space"] * 4
    assert not [item for item in found if not item["book"]["in_stock"]]


def test_with_nothing_to_go_on_well_rated_books_come_and_say_so(world: World) -> None:
    answer = for_reader(world, text="qwertyuiop zzyzx", limit=5, category="sea")
    assert (answer["reason"], answer["fallback"]) == ("nothing_in_common", "well_rated")
    ratings = [item["book"]["rating"] for item in answer["items"]]
    assert ratings == sorted(ratings, reverse=True) and ratings[0] == 5
    assert {item["book"]["category"] for item in answer["items"]} == {"sea"}
    assert {(item["score"], len(item["why"])) for item in answer["items"]} == {(0, 0)}


FILTERS: list[dict[str, Any]] = [
    {},
    {"category": "crime"},
    {"category": "sea", "min_rating": 4},
    {"min_price": 12.1, "max_price": 13.1},
    {"min_rating": 5, "in_stock": False},
    {"category": "space", "max_price": 10.1, "in_stock": False},
    {"category": "nothing"},
]


def passing(world: World, **filters: Any) -> set[int]:
    if filters.setdefault("in_stock", True) is False:  # which a list takes for "whether or not"
        del filters["in_stock"]
    return {book["id"] for book in get(world.client, "/books", limit=100, **filters)["items"]}


def check_whole(answer: dict[str, Any], may: set[int], limit: int, own: str | None = None) -> None:
    """It has as many books as it may, and says which of them are near ones."""
    ids = [item["book"]["id"] for item in answer["items"]]
    assert set(ids) <= may and len(ids) == len(set(ids)) == min(limit, len(may))
    near = [item for item in answer["items"] if item["why"]]
    rest = answer["items"][len(near) :]
    assert all(item["score"] > 0 for item in near) and {item["score"] for item in rest} <= {0}
    ratings = [(item["book"]["category"] == own, item["book"]["rating"]) for item in rest]
    assert ratings == sorted(ratings, reverse=True)
    is_own = bool(rest) and {item["book"]["category"] for item in rest} == {own}
    fallback = "well_rated_in_category" if is_own else "well_rated"
    reason = (
        "little_in_common" if near and rest else None if near else "nothing_in_common" if rest else "no_book_passes"
    )
    assert (answer["reason"], answer["fallback"]) == (reason, fallback if rest else None)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize(("limit", "diversity"), [(3, 0), (10, 0.5), (100, 0)])
def test_no_filter_makes_a_list_shorter_than_the_books_that_pass(
    world: World, filters: dict[str, Any], limit: int, diversity: float
) -> None:
    may, asked = passing(world, **filters), {"limit": limit, "diversity": diversity} | filters
    own = {book_id: theme for theme in given.THEMES for book_id in ids_of(world, theme)[::5]}
    first = {} if "category" in filters else own
    for book_id in own:
        answer = get(world.client, f"/books/{book_id}/recommendations", **asked)
        check_whole(answer, may - {book_id}, limit, first.get(book_id))
    batch = world.client.post(
        "/recommendations:batch", json={"book_ids": list(own)[:10]} | asked | {"limit": 10}
    ).json()
    for result in batch["results"]:
        check_whole(result, may - {result["book_id"]}, 10, first.get(result["book_id"]))
    liked = list(own)[:3]
    check_whole(for_reader(world, liked=liked, **asked), may - set(liked), limit)
    check_whole(for_reader(world, text="An orchard of roses", **asked), may, limit)
    check_whole(for_reader(world, text="qwertyuiop", exclude=liked, **asked), may - set(liked), limit)


def test_what_fills_a_list_has_no_work_twice(after: World) -> None:
    again = replace(given.catalogue()["crime"][4], source_id="again", upc="again", url="http://127.0.0.1/again")
    given.load(after.database_url, "again", [replace(again, category="again", category_name="Again", rating=5)])
    given.wait_for(ranked(after))
    everything = get(after.client, f"/books/{ids_of(after, 'sea')[0]}/recommendations", limit=100, in_stock=False)
    titles = [item["book"]["title"] for item in everything["items"]]
    assert everything["fallback"] and len(set(titles)) == len(titles) == 47 and again.title in titles
    of_itself = for_reader(after, liked=ids_of(after, "again"), limit=100, in_stock=False)
    assert again.title not in [item["book"]["title"] for item in of_itself["items"]]
    given.load(after.database_url, "again", [])


def test_a_book_that_shares_nothing_falls_back_on_its_category(after: World) -> None:
    odd = given.catalogue()["sea"][1]
    odd = replace(odd, source_id="odd", upc="odd", title="Zzyzx", category="odd", category_name="Odd", description=None)
    other = replace(odd, source_id="odder", upc="odder", title="Qwertyuiop", url="http://127.0.0.1/odder")
    given.load(after.database_url, "odd", [odd, other])
    given.wait_for(ranked(after))
    asked, neighbour = ids_of(after, "odd")
    answer = get(after.client, f"/books/{asked}/recommendations")
    assert (answer["reason"], answer["fallback"]) == ("nothing_in_common", "well_rated")
    assert answer["items"][0]["book"]["id"] == neighbour and len(answer["items"]) == 10
    answer = get(after.client, f"/books/{asked}/recommendations", limit=1)
    assert (answer["reason"], answer["fallback"]) == ("nothing_in_common", "well_rated_in_category")
    assert [item["book"]["id"] for item in answer["items"]] == [neighbour]
    nothing = get(after.client, f"/books/{asked}/recommendations", category="no-such")
    assert (nothing["items"], nothing["reason"], nothing["fallback"]) == ([], "no_book_passes", None)
    given.load(after.database_url, "odd", [])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit": 3},
        {"liked": [1], "text": "a whale"},
        {"liked": []},
        {"liked": [0]},
        {"liked": [True]},
        {"text": ""},
        {"text": "x" * 10_001},
        {"liked": [1], "diversity": 1.1},
        {"liked": [1], "min_price": "9"},
        {"liked": [1], "exclude": ["1"]},
        {"liked": [1], "min_rating": 6},
        {"liked": [1], "category": "\u0000"},
        {"liked": [1], "colour": "red"},
    ],
)
def test_what_cannot_be_asked_for_a_reader_is_a_422_problem(world: World, body: dict[str, Any]) -> None:
    assert problem(world.client.post("/recommendations", json=body), 422)["errors"]


def test_a_range_without_a_price_in_it_has_no_books_wherever_it_is_asked_for(world: World) -> None:
    """No fault of the caller's: a schema cannot say it, and a shop's two sliders may cross."""
    crossed, path = {"min_price": 9, "max_price": 8}, f"/books/{ids_of(world)[0]}/recommendations"
    for found in (get(world.client, path, **crossed), get(world.client, "/books", **crossed)):
        assert found["items"] == []
    assert get(world.client, path, **crossed)["reason"] == "no_book_passes"
    assert problem(world.client.post("/recommendations", json={"liked": [999_999]}), 404)["book_ids"] == [999_999]


@pytest.mark.parametrize("price", ["10.100000000000001", "1e1", "0.0000000001", "1e-99999", "10.10"])
def test_a_price_to_filter_by_may_have_any_number_of_digits(world: World, price: str) -> None:
    books = get(world.client, "/books", min_price=price, limit=100)["items"]
    everything = get(world.client, "/books", limit=100)["items"]
    assert [book["id"] for book in books] == [book["id"] for book in everything if book["price"] >= float(price)]
