"""The page of a model: the map of the catalogue, how the lists share out their places, what two models differ in."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from bookclub_platform.assets._model_page import Side, drawn, mapped, page
from bookclub_platform.models import BookText, Judge, Tfidf, decide, list_health
from bookclub_platform.models._health import stability
from bookclub_platform.models._map import _vectors, places
from bookclub_platform.report import pictures, svg
from bookclub_platform_tests.api_fixtures import catalogue

HOSTILE = "<script>alert(1)</script> & \x0b"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def rows() -> list[BookText]:
    books = [book for shelf in catalogue().values() for book in shelf]
    return [
        BookText(at, book.title, book.description, book.category, book.category_name) for at, book in enumerate(books)
    ]


@pytest.fixture(scope="module")
def model(rows: list[BookText]) -> Tfidf:
    return Tfidf().fit(rows)


def sides_of(rows: list[BookText], models: dict[str, Tfidf]) -> tuple[dict[str, Side], Judge]:
    judge = Judge(rows)
    return {name: Side(one, judge.judge(one), list_health(one, rows)) for name, one in models.items()}, judge


def test_books_of_a_shelf_lie_together_on_the_map_and_it_is_the_same_each_time(
    rows: list[BookText], model: Tfidf
) -> None:
    found = places(model)
    assert found.book_ids.tolist() == [row.id for row in rows]
    assert np.ptp(found.xy, axis=0) == pytest.approx([1, 1]) and found.xy.min() == 0
    assert np.array_equal(places(model).xy, found.xy)
    between = np.linalg.norm(found.xy[:, None] - found.xy[None], axis=2)
    np.fill_diagonal(between, np.inf)
    same = [rows[int(near)].category == row.category for near, row in zip(between.argmin(axis=1), rows, strict=True)]
    assert np.mean(same) > 0.9


def test_of_a_large_catalogue_an_even_part_is_on_the_map_and_of_a_tiny_one_nothing(
    rows: list[BookText], model: Tfidf
) -> None:
    assert places(model, most=12).book_ids.tolist() == np.linspace(0, len(rows) - 1, 12, dtype=int).tolist()
    assert not len(places(Tfidf(min_df=1).fit(rows[:5])).book_ids)
    assert not mapped(Tfidf(min_df=1).fit(rows[:5]), rows[:5]).points


@pytest.mark.parametrize("embedding", ["none", "lsa"])
@pytest.mark.parametrize("count", [10, 400])
def test_of_books_that_are_all_alike_there_is_no_map(count: int, embedding: Any) -> None:
    alike = [BookText(at, "Whale", None, "sea", "Sea") for at in range(count)]
    assert not mapped(Tfidf(min_df=1, embedding=embedding).fit(alike), alike).points
    two_kinds = [*alike[1:], alike[0]._replace(title="Lamp")]
    found = mapped(Tfidf(min_df=1, embedding=embedding).fit(two_kinds), two_kinds)
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y, *_ in found.points)


def test_a_catalogue_that_no_judge_can_judge_gets_a_page_without_these_pictures() -> None:
    rows = [BookText(at, f"Whale number {at}", None, f"shelf-{at}", f"Shelf {at}") for at in range(10)]
    model = Tfidf(min_df=1).fit(rows)
    sides, judge = sides_of(rows, {"challenger": model, "champion": model})
    decision = decide(sides["challenger"].judgement, sides["champion"].judgement)
    shown = drawn(sides, judge, {})
    assert list(shown) == ["exposure"] and not decision.is_promoted
    assert decision.reason in page(decision, sides, rows, shown, mapped(model, rows), 1.0)
    assert list(drawn(sides, judge, {"1": 0.5})) == ["exposure", "scores_over_time"]


@pytest.mark.parametrize("embedding", ["none", "lsa"])
def test_what_is_near_on_the_map_is_what_the_scores_say(rows: list[BookText], embedding: Any) -> None:
    model = Tfidf(embedding=embedding, embedding_weight=0.6).fit(rows)
    vectors = _vectors(model, np.arange(len(rows)))
    products = (vectors @ vectors.T).toarray()
    for row in rows:
        for near in model.recommend(row.id, 5):
            sense = sum(reason.share for reason in near.why if reason.kind == "embedding")
            product = products[row.id, near.book_id]
            assert product == pytest.approx(near.score, abs=1e-5) if sense > 0 else product <= near.score + 1e-5


def test_the_map_for_a_picture_is_the_same_without_titles_and_short(rows: list[BookText], model: Tfidf) -> None:
    found = mapped(model, rows)
    long, short = found.drawn(has_titles=True), found.drawn(has_titles=False)
    assert rows[0].title in long and rows[0].title not in short and len(short) < len(long) / 3
    circles = {(dot.get("cx"), dot.get("cy")) for dot in ElementTree.fromstring(long).iter(f"{SVG}circle")}
    ways = [path.get("d", "") for path in ElementTree.fromstring(short).iter(f"{SVG}path")][1:]
    assert {place for way in ways for place in re.findall(r"M(\S+) (\S+)h0", way)} == circles


def test_the_map_names_the_largest_shelves_and_leaves_placeholders_grey() -> None:
    points = [(at / 9, 0.5, f"Book {at}", "Sea" if at < 6 else HOSTILE if at < 9 else "Default") for at in range(10)]
    drawing = ElementTree.fromstring(pictures.catalogue_map(points, {"Default"}))
    groups = {group.get("fill"): len(group.findall(f"{SVG}circle")) for group in drawing.findall(f"{SVG}g")}
    assert groups == {svg.GROUPS[0]: 6, svg.GROUPS[1]: 3, svg.PALE: 1, None: 0}
    names = [text.text for text in drawing.iter(f"{SVG}text")]
    assert names[0] == "Sea" and names[1].startswith("<script>") and len(names) == 2  # type: ignore[union-attr]
    assert "Book 9 (Default)" in [title.text for title in drawing.iter(f"{SVG}title")]


def test_exposures_add_up_to_the_places_in_all_lists(rows: list[BookText], model: Tfidf) -> None:
    health = list_health(model, rows)
    lists = [model.recommend(row.id, 10) for row in rows]
    assert health.exposures.sum() == sum(map(len, lists)) and len(health.exposures) == len(rows)
    assert health.exposures[0] / health.lists == health.largest_exposure
    assert (np.diff(health.exposures) <= 0).all()


def test_stability_is_the_part_of_the_champions_lists_that_stays(rows: list[BookText], model: Tfidf) -> None:
    assert stability(model, model) == 1
    other = Tfidf(category_weight=0.0, category_name_weight=0).fit(rows)
    kept = [
        len({near.book_id for near in other.recommend(row.id, 10)} & before) / len(before)
        for row in rows
        if (before := {near.book_id for near in model.recommend(row.id, 10)})
    ]
    assert stability(other, model) == pytest.approx(np.mean(kept)) and stability(other, model) < 1


def test_the_page_shows_the_decision_both_models_and_every_picture(rows: list[BookText], model: Tfidf) -> None:
    worse = Tfidf(category_weight=0.0, category_name_weight=0).fit(rows)
    sides, judge = sides_of(rows, {"challenger": worse, "champion": model})
    decision = decide(sides["challenger"].judgement, sides["champion"].judgement)
    shown = drawn(sides, judge, {"1": 0.5, "2": 0.4})
    html = page(decision, sides, rows, shown, mapped(worse, rows), 0.5)
    assert html.startswith("<!doctype html>") and html.count("<h1>Not promoted</h1>") == 1
    assert decision.reason in html
    score = sides["champion"].judgement.score
    assert f"<td>{score:.4f}".rstrip("0") in html and "<tr><td>stability</td><td>0.5</td><td>–</td>" in html
    assert all(picture in html for picture in shown.values()) and html.count("<svg ") == len(shown) + 1
    assert "like books lie together" in html and html.count("<h3>champion</h3>") == html.count("<h3>challenger</h3>")
    bars = ElementTree.fromstring(shown["by_category"])
    assert {"sea", "garden", "space", "crime", "■ challenger", "■ champion"} <= {
        text.text for text in bars.iter(f"{SVG}text")
    }


def test_the_page_of_the_first_model_stands_alone_and_holds_no_markup_of_the_shop(rows: list[BookText]) -> None:
    hostile = [row._replace(title=f"{HOSTILE} {row.title}", category_name=f'"><img>{row.category}') for row in rows]
    sides, judge = sides_of(hostile, {"challenger": Tfidf().fit(hostile)})
    decision = decide(sides["challenger"].judgement, None)
    model = sides["challenger"].model
    html = page(decision, sides, hostile, drawn(sides, judge, {}), mapped(model, hostile), float("nan"))
    assert "<h1>Promoted</h1>" in html and "champion</h3>" not in html
    assert "<script" not in html and "<img" not in html and not re.search(r"(?:src|href)=", html)
