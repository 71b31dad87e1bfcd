"""Free text finds books: the engine on rows, and /books/search over real HTTP, a real Postgres and a real registry."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bookclub_platform.core.errors import ArtifactInvalid
from bookclub_platform.models import BookText, Tfidf, find, load_model
from bookclub_platform.models._lexicon import Lexicon, typos
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get
from serving.app import create_app
from serving.recommender import finder

world, after = given.world, given.after

ROOT = Path(__file__).parents[1]
SHOP = ROOT.parent / "shared" / "shop" / "books.jsonl"

SHELF = [
    ("It", "A clown frightens the children of a small town."),
    ("The Lighthouse Keeper", "A keeper alone with the sea finds a letter that was never meant for her."),
    ("Letters to the Sea", "A sailor writes home from the storm, and the storm answers with the lighthouse dark."),
    ("Crème Brûlée for Beginners", "Recipes for the oven, for children and for a small kitchen."),
    ("Saga, Volume 5 (Saga #5)", "Two soldiers of a long war run for a small planet."),
    ("Saga, Volume 6 (Saga #6)", "Two soldiers of a long war reach the planet at last."),
    ("Тихий Дон", "A family of a small village, and a war."),
    ("The Gardener's Year", "The gardener writes of the storm, the oven and the letter in his garden."),
]


@pytest.fixture(scope="module")
def shelf() -> Tfidf:
    rows = [BookText(at, title, text, "default", "Default") for at, (title, text) in enumerate(SHELF, 1)]
    return Tfidf().fit(rows)


def found(model: Tfidf, text: str) -> list[str]:
    """Titles, the best first, as the API orders them."""
    answer = find([model], text, 100)
    assert answer is not None
    scores = {book_id: answer.score(book_id, SHELF[book_id - 1]) for book_id in answer.scores}
    assert all(0 < score <= 1 for score in scores.values())
    return [SHELF[book_id - 1][0] for book_id in sorted(scores, key=lambda book_id: -scores[book_id])]


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("it", "It"),
        ("the lighthouse keeper", "The Lighthouse Keeper"),
        ("lihgthouse", "The Lighthouse Keeper"),
        ("keepers of lighthouses", "The Lighthouse Keeper"),
        ("lighth", "The Lighthouse Keeper"),
        ('"a letter that was never meant"', "The Lighthouse Keeper"),
        ("creme brulee", "Crème Brûlée for Beginners"),
        ("CRÈME", "Crème Brûlée for Beginners"),
        ("saga #6", "Saga, Volume 6 (Saga #6)"),
        ("#5", "Saga, Volume 5 (Saga #5)"),
        ("ТИХИЙ", "Тихий Дон"),
        ("gardeners year", "The Gardener's Year"),
        ("gardener’s", "The Gardener's Year"),
        ("b", "Crème Brûlée for Beginners"),
        ("lighthouse " * 80, "The Lighthouse Keeper"),
    ],
)
def test_the_book_that_was_meant_comes_first(shelf: Tfidf, asked: str, title: str) -> None:
    assert found(shelf, asked)[0] == title


@pytest.mark.parametrize("asked", ["!!!", " ", "中文", "zzzzzzzz", "\ud800", "#99"])
def test_what_stands_nowhere_finds_nothing(shelf: Tfidf, asked: str) -> None:
    assert found(shelf, asked) == []


def test_stop_words_find_no_books_beside_a_telling_word(shelf: Tfidf) -> None:
    assert found(shelf, "the keeper") == ["The Lighthouse Keeper"]
    assert "Letters to the Sea" in found(shelf, "the")


def test_the_order_of_the_words_decides_between_books_that_have_them_all(shelf: Tfidf) -> None:
    assert found(shelf, "the storm the oven and the letter")[0] == "The Gardener's Year"


def test_pieces_are_the_text_and_mark_its_words(shelf: Tfidf) -> None:
    answer = find([shelf], "the lihgthouse keeper", 10)
    assert answer is not None
    title, text = SHELF[1]
    pieces = answer.reader.pieces(title)
    assert "".join(piece.text for piece in pieces) == title
    assert [piece.text for piece in pieces if piece.is_match] == ["The Lighthouse Keeper"]
    assert [piece.text for piece in answer.reader.pieces(text) if piece.is_match] == ["keeper"]
    assert answer.reader.matched([title]) == ["the", "lihgthouse", "keeper"]


def test_a_snippet_is_the_part_that_matches(shelf: Tfidf) -> None:
    answer = find([shelf], "lighthouse", 10)
    assert answer is not None
    text = "before " * 100 + "the lighthouse stands " + "after " * 100
    pieces = answer.reader.snippet(text)
    assert pieces[0].text == "…" and pieces[-1].text == "…"
    assert [piece.text for piece in pieces if piece.is_match] == ["lighthouse"]
    assert len("".join(piece.text for piece in pieces).split()) <= 34
    assert "".join(piece.text for piece in answer.reader.snippet("Nothing of it here")) == "Nothing of it here"
    assert answer.reader.snippet("") == []


def test_a_saved_model_searches_as_before_and_one_without_the_index_does_not(shelf: Tfidf, tmp_path: Path) -> None:
    shelf.save(tmp_path / "whole")
    loaded = load_model(tmp_path / "whole")
    assert isinstance(loaded, Tfidf)
    assert found(loaded, "lihgthouse") == found(shelf, "lihgthouse")
    older = load_model(tmp_path / "whole")
    assert isinstance(older, Tfidf)
    older.search_ = None
    older.save(tmp_path / "older")
    assert find([load_model(tmp_path / "older")], "lighthouse", 10) is None


@pytest.mark.parametrize("name", ["books", "stem_words", "columns", "lexicon.ends", "lexicon.run_words", "weights"])
def test_an_index_that_leads_nowhere_is_refused(shelf: Tfidf, tmp_path: Path, name: str) -> None:
    assert shelf.search_ is not None
    arrays = {key: array.copy() for key, array in shelf.search_.arrays().items()}
    arrays[f"search.{name}"][-1] = -(2**30)
    damaged = type(shelf)().fit([BookText(at, *row, "default", "Default") for at, row in enumerate(SHELF, 1)])
    damaged.search_ = type(shelf.search_).from_arrays(arrays)
    damaged.save(tmp_path / "damaged")
    with pytest.raises(ArtifactInvalid):
        load_model(tmp_path / "damaged")


def test_books_folded_in_since_are_found_beside_the_others_and_win_where_both_have_them(shelf: Tfidf) -> None:
    fresh = shelf.fold(
        [
            BookText(3, "The Comet Harbour", "A keeper and the storm.", "default", "Default"),
            BookText(77, "Another Lighthouse", "No word of the rest.", "default", "Default"),
        ]
    )

    def ids(asked: str) -> list[int]:
        answer = find([shelf, fresh], asked, 10)
        assert answer is not None
        return list(answer.scores)

    assert ids("comet") == ids("harbuor") == [3]
    assert sorted(ids("lighthouse")) == [2, 77]  # 3 was about one, and is no more
    assert 3 in ids("storm") and ids("letters to the sea")[0] == 2
    assert fresh.search_ is not None
    assert [set(title.split()) for title in fresh.search_.titles()] == [
        {"the", "comet", "harbour"},
        {"another", "lighthouse"},
    ]


def test_a_lexicon_finds_exactly_beginnings_and_typos() -> None:
    words = sorted(["storm", "stork", "lighthouse", "light", "año", "海", ""])
    lexicon = Lexicon.of(words)
    assert [lexicon.find(word) for word in words] == list(range(len(words)))
    assert lexicon.find("stor") is None
    assert [lexicon.word(at) for at in lexicon.beginning("light")] == ["light", "lighthouse"]
    assert [(lexicon.word(at), n) for at, n in lexicon.misspelt("strom")] == [("storm", 1)]
    assert lexicon.misspelt("st0rm") == [] and Lexicon.of([]).find("storm") is None
    assert Lexicon.of([]).misspelt("storm") == [] and Lexicon.of([]).fault() is None and lexicon.fault() is None


@pytest.mark.parametrize(
    ("written", "meant", "expected"),
    [("storm", "storm", 0), ("strom", "storm", 1), ("torm", "storm", 1), ("stoorm", "storm", 1), ("abcd", "dcba", 3)],
)
def test_typos_are_counted_as_writers_make_them(written: str, meant: str, expected: int) -> None:
    assert typos(written, meant, 2) == expected


def test_the_api_answers_with_books_scores_and_marks(world: World) -> None:
    page = get(world.client, "/books/search", q="lihgthouse", limit=5)
    assert page["items"] and page["model"]["name"] == "tfidf_model"
    scores = [item["score"] for item in page["items"]]
    assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)
    for item in page["items"]:
        assert {key: item[key] for key in item if key not in ("score", "matched")} == get(
            world.client, f"/books/{item['id']}"
        )
        texts = {name: "".join(piece["text"] for piece in item["matched"][name]) for name in ("title", "snippet")}
        assert texts["title"] == item["title"] and texts["snippet"].strip("…") in (item["description"] or "")
        marked = [piece["text"] for name in texts for piece in item["matched"][name] if piece["is_match"]]
        assert {text.lower() for text in marked} == {"lighthouse"}
        assert item["matched"]["terms"] == ["lihgthouse"]


def test_pages_hold_every_book_that_was_found_once(world: World) -> None:
    whole = get(world.client, "/books/search", q="a tale of a lighthouse and a storm", limit=100)
    ids, cursor = [], None
    while True:
        page = get(
            world.client,
            "/books/search",
            **{"q": "a tale of a lighthouse and a storm", "limit": 7} | ({"cursor": cursor} if cursor else {}),
        )
        ids += [item["id"] for item in page["items"]]
        if (cursor := page["next"]) is None:
            break
    assert ids == [item["id"] for item in whole["items"]] and len(set(ids)) == whole["total"] > 7


def test_filters_leave_the_best_of_the_rest(world: World) -> None:
    everywhere = get(world.client, "/books/search", q="tale", limit=100)["items"]
    for name, value, passes in (
        ("category", "sea", lambda book: book["category"] == "sea"),
        ("min_price", 15, lambda book: book["price"] >= 15),
        ("max_price", 15, lambda book: book["price"] <= 15),
        ("min_rating", 4, lambda book: book["rating"] >= 4),
        ("in_stock", True, lambda book: book["in_stock"]),
    ):
        page = get(world.client, "/books/search", **{"q": "tale", name: value, "limit": 100})
        assert {book["id"] for book in page["items"]} == {book["id"] for book in everywhere if passes(book)}
        assert 0 < page["total"] < len(everywhere)


@pytest.mark.parametrize("narrow", [{"category": "crime"}, {"min_rating": 5}, {"max_price": 12.1, "in_stock": True}])
def test_a_narrow_filter_loses_nothing_to_the_best_of_all(
    world: World, monkeypatch: pytest.MonkeyPatch, narrow: dict[str, Any]
) -> None:
    expected = get(world.client, "/books/search", q="tale", limit=100, **narrow)
    assert expected["total"] > 3
    monkeypatch.setattr(finder, "RANKED", expected["total"])
    found = get(world.client, "/books/search", q="tale", limit=100, **narrow)
    assert found["items"] == expected["items"] and found["total"] == expected["total"]


@pytest.mark.parametrize("sort", ["id", "price", "-price", "rating", "-rating", "title", "-first_seen"])
def test_what_was_found_comes_in_the_order_asked_for_page_by_page(world: World, sort: str) -> None:
    everywhere = [book["id"] for book in get(world.client, "/books", sort=sort, limit=100)["items"]]
    query = {"q": "a tale of a lighthouse and a storm", "min_price": 12, "source": "books_toscrape"}
    best = get(world.client, "/books/search", limit=100, **query)["items"]
    pages = [get(world.client, "/books/search", limit=7, sort=sort, **query)]
    while following := pages[-1]["next"]:
        pages.append(get(world.client, "/books/search", limit=7, sort=sort, cursor=following, **query))
    found = [book for page in pages for book in page["items"]]
    assert [book["id"] for book in found] == sorted((book["id"] for book in best), key=everywhere.index)
    assert {book["id"]: book["score"] for book in found} == {book["id"]: book["score"] for book in best}
    assert len(pages) > 3 and {page["total"] for page in pages} == {len(best)}


def test_a_cursor_belongs_to_its_order_and_a_shop_without_books_has_none(world: World) -> None:
    following = get(world.client, "/books/search", q="tale", limit=3, sort="price")["next"]
    wrong = world.client.get("/books/search", params={"q": "tale", "cursor": following})
    assert given.problem(wrong, 409)["type"].endswith(":other-order") and "sort=price" in wrong.json()["detail"]
    for other in ({"q": "storm"}, {"q": "tale", "min_rating": 2}):
        wrong = world.client.get("/books/search", params={"sort": "price", "cursor": following, **other})
        assert given.problem(wrong, 409)["type"].endswith(":other-filters")
    rest = [get(world.client, "/books/search", q="tale", sort="price", cursor=one) for one in (following, "3.p")]
    assert rest[0] == rest[1] and rest[0]["items"], "as cursors were before"
    assert get(world.client, "/books/search", q="tale", source="another_shop")["total"] == 0


@pytest.mark.parametrize("chosen", [{}, {"category": "sea"}, {"min_rating": 4, "max_price": 15}, {"in_stock": False}])
def test_facets_count_what_was_found_as_each_further_choice_would_leave_it(
    world: World, chosen: dict[str, Any]
) -> None:
    def total(**query: Any) -> int:
        count: int = get(world.client, "/books/search", q="tale", limit=1, **query)["total"]
        return count

    def without(*names: str) -> dict[str, Any]:
        return {key: value for key, value in chosen.items() if key not in names}

    page = get(world.client, "/books/search", q="tale", facets=True, limit=1, **chosen)
    facets = page["facets"]
    for row in facets["category"]:
        assert row["books"] == total(**without("category"), category=row["category"])
    for row in facets["in_stock"]:
        assert row["books"] == total(**without("in_stock"), in_stock=row["in_stock"])
    for row in facets["price"]:
        band = {"min_price": row["min_price"]} | ({"max_price": row["max_price"]} if row["max_price"] else {})
        assert row["books"] == total(**without("min_price", "max_price"), **band)
    stars = 0
    for row in facets["rating"]:  # from five down
        stars += row["books"]
        assert stars == total(**without("min_rating"), min_rating=row["rating"])
    assert page["total"] == total(**chosen) > 0
    assert get(world.client, "/books/search", q="tale", **chosen)["facets"] is None


def test_a_upc_finds_its_book(after: World) -> None:
    books = given.catalogue()["sea"]
    books[3] = replace(books[3], upc="978-1405165761", source_id="a897fe39b1053632")
    given.load(after.database_url, "sea", books)
    for code in ("a897fe39b1053632", "978-1405165761"):
        (item, *_) = get(after.client, "/books/search", q=code)["items"]
        assert (item["title"], item["score"]) == (books[3].title, 1.0)


def test_a_delisted_book_is_not_found(after: World) -> None:
    gone = get(after.client, "/books/search", q="lighthouse")["items"][0]
    books = [book for book in given.catalogue()["sea"] if book.title != gone["title"]]
    given.load(after.database_url, "sea", books)
    assert gone["id"] not in [item["id"] for item in get(after.client, "/books/search", q="lighthouse")["items"]]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "q=",
        "q=%00",
        "q=a%00b",
        "q=" + "x" * 1001,
        "q=a&cursor=0",
        "q=a&cursor=-1",
        "q=a&p=1",
        "q=a&limit=101",
        "q=a&min_price=-1",
        "q=a&min_price=NaN",
        "q=a&min_rating=6",
    ],
)
def test_a_search_that_makes_no_sense_is_refused_by_name(world: World, bad: str) -> None:
    answer = world.client.get(f"/books/search?{bad}")
    assert (answer.status_code, answer.headers["content-type"]) == (422, given.PROBLEM)


@pytest.mark.parametrize("odd", ["!!!", "%F0%9F%98%80", "' OR 1=1 --", "%25", "中文", "\\", "a" * 1000, '"'])
def test_any_other_text_is_only_searched_for(world: World, odd: str) -> None:
    answer = world.client.get(f"/books/search?q={odd}")
    assert answer.status_code == 200


def test_a_page_beyond_the_last_is_empty(world: World) -> None:
    page = get(world.client, "/books/search", q="lighthouse", cursor="9999")
    assert page["items"] == [] and page["next"] is None and page["total"] > 0


def test_readers_search_in_the_catalogue_and_see_the_words_marked(world: World) -> None:
    answer = world.client.get("/catalogue", params={"q": "lihgthouse", "category": ""})
    assert answer.status_code == 200 and "<mark>" in answer.text
    expected = [item["id"] for item in get(world.client, "/books/search", q="lihgthouse", limit=24)["items"]]
    shown = re.findall(r'<h2><a href="/catalogue/([0-9]+)"', answer.text)
    assert [int(number) for number in shown] == expected
    assert {mark.lower() for mark in re.findall("<mark>([^<]*)</mark>", answer.text)} == {"lighthouse"}


def test_readers_come_to_every_page_of_what_was_found(world: World) -> None:
    address, seen = "/catalogue?q=a+tale+that+everybody+feared", []
    while True:
        text = world.client.get(address).text
        seen += re.findall(r'<h2><a href="/catalogue/([0-9]+)"', text)
        following = re.search(r'rel="next" href="([^"]+)"', text)
        if following is None:
            break
        address = html.unescape(following[1])
    assert len(set(seen)) == len(seen) == get(world.client, "/books/search", q="a tale that everybody feared")["total"]


def test_what_is_searched_for_and_found_is_escaped(after: World) -> None:
    hostile = "<script>alert(1)</script> lighthouse"
    books = given.catalogue()["sea"]
    books[1] = replace(books[1], title=hostile, description=hostile)
    given.load(after.database_url, "sea", books)
    text = after.client.get("/catalogue", params={"q": hostile}).text
    assert "<script" not in text and "&lt;script" in text and "<mark>lighthouse</mark>" in text


def test_without_a_model_search_says_when_to_come_back_and_the_shelves_stay_open(world: World, tmp_path: Path) -> None:
    app = create_app(given.settings(tmp_path), world.database_url, "http://127.0.0.1:1")
    with given.serving(app) as client:
        answer = client.get("/books/search?q=lighthouse")
        assert (answer.status_code, answer.headers["content-type"]) == (503, given.PROBLEM)
        assert int(answer.headers["retry-after"]) > 0
        assert client.get("/catalogue?q=lighthouse").status_code == 503
        assert client.get("/catalogue").status_code == 200


@pytest.mark.skipif(not SHOP.exists(), reason="the real shop is not here")
def test_the_books_that_were_meant_are_found_in_a_real_shop() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "search.py"), "--shop", str(SHOP), "--questions", "60"]
    done = subprocess.run([*command, "--ours", "--json"], stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(done.stdout)
    assert set(figures) == {"a word missing", "a typo", "a phrase"}
    assert all(kind["ours"]["mrr"] >= 0.9 for kind in figures.values()), figures
