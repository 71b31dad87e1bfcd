"""Which retrains become champion: planted ones of every kind."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bookclub_platform.models import BookText, Judge, Judgement, Recommendation, Tfidf, _health, decide, list_health
from bookclub_platform.sandbox.catalogue import generate
from bookclub_platform_tests.api_fixtures import catalogue

QUERIES = np.arange(1, 401)
RANDOM = np.random.default_rng(7)


def judgement(scores: NDArray[np.float64], faults: tuple[str, ...] = ()) -> Judgement:
    return Judgement(QUERIES[: len(scores)], scores, faults)


def noisy(scores: NDArray[np.float64], gain: float = 0.0) -> Judgement:
    """As two equally good models differ: each list a little, up or down."""
    return judgement(np.clip(scores + gain + RANDOM.normal(0, 0.1, scores.shape), 0, 1))


@pytest.fixture(scope="module")
def scores() -> NDArray[np.float64]:
    found = RANDOM.beta(2, 4, (400, 3))
    found[RANDOM.random(400) < 0.6, 0] = np.nan  # most books share their name with none
    return found


def test_of_200_retrains_without_a_difference_at_most_2_percent_are_promoted(scores: NDArray[np.float64]) -> None:
    assert sum(decide(noisy(scores), noisy(scores)).is_promoted for _ in range(200)) <= 4


def test_of_200_better_ones_at_least_95_percent_are_promoted_and_of_worse_ones_none(
    scores: NDArray[np.float64],
) -> None:
    assert sum(decide(noisy(scores, 0.04), noisy(scores)).is_promoted for _ in range(200)) >= 190
    assert not any(decide(noisy(scores), noisy(scores, 0.04)).is_promoted for _ in range(200))


def test_the_same_model_once_more_keeps_the_champion(scores: NDArray[np.float64]) -> None:
    decision = decide(judgement(scores), judgement(scores))
    assert not decision.is_promoted
    assert (decision.figures["gain"], decision.figures["gain_lower_bound"]) == (0, 0)
    assert "not clearly better" in decision.reason


def test_a_gain_that_is_sure_and_too_small_keeps_the_champion(scores: NDArray[np.float64]) -> None:
    decision = decide(judgement(scores + 0.01), judgement(scores))
    assert decision.figures["gain_lower_bound"] > 0 and not decision.is_promoted


def test_a_better_model_that_breaks_a_guardrail_keeps_the_champion(scores: NDArray[np.float64]) -> None:
    decision = decide(judgement(scores + 0.2, ("one book stands in 40.0% of the lists",)), judgement(scores))
    assert not decision.is_promoted and "one book stands in 40.0%" in decision.reason


def test_the_first_model_is_promoted_if_it_breaks_no_guardrail(scores: NDArray[np.float64]) -> None:
    assert decide(judgement(scores), None).is_promoted
    assert not decide(judgement(scores, ("3 lists hold their own book",)), None).is_promoted


def test_a_missing_score_and_other_queries_keep_the_champion(scores: NDArray[np.float64]) -> None:
    spoilt = scores + 0.2
    spoilt[5, 1] = np.nan
    assert "missing" in decide(judgement(spoilt), judgement(scores)).reason
    other = Judgement(QUERIES + 1, scores + 0.2)
    assert "same queries" in decide(other, judgement(scores)).reason
    nothing = judgement(np.empty((0, 3)))
    assert not decide(nothing, nothing).is_promoted


def test_a_model_that_fails_at_one_proxy_is_worth_nothing(scores: NDArray[np.float64]) -> None:
    blind = np.ones_like(scores)
    blind[np.isnan(scores)] = np.nan
    blind[:, 1] = 0
    assert judgement(blind).score == 0
    assert not decide(judgement(blind), judgement(scores)).is_promoted


def rows() -> list[BookText]:
    books = [book for books in catalogue().values() for book in books]
    return [
        BookText(at, book.title, book.description, book.category, book.category_name)
        for at, book in enumerate(books, 1)
    ]


def test_rows_folded_into_the_space_that_they_taught_are_the_model() -> None:
    model = Tfidf().fit(rows())
    before, after = model.index_.by_book, model.fold(rows()).index_.by_book
    assert np.array_equal(before.indptr, after.indptr) and np.array_equal(before.indices, after.indices)
    assert np.allclose(before.data, after.data, atol=1e-6)


def test_a_book_of_unknown_words_and_shelf_is_folded_to_nothing() -> None:
    model = Tfidf().fit(rows())
    folded = model.fold([*rows(), BookText(99, "Zzyzx", "qwertyuiop", "no-such", "No Such")])
    assert folded.recommend(99, 10) == []
    assert len(folded.book_ids) == len(model.book_ids) + 1


def test_names_and_series_that_books_share_are_struck_and_their_books_are_relatives() -> None:
    text = "It is said that Ottoline Quill wrote this in a year, of rain and harbours."
    shared = [
        BookText(1, "Rain (Wet Places #1)", text, "sea", "Sea"),
        BookText(2, "Harbours", text, "sea", "Sea"),
        BookText(3, "Dust (Wet Places #2)", "A tale of dust.", "land", "Land"),
        BookText(4, "Ash", "A tale of ash and Ottoline alone.", "land", "Land"),
    ]
    judge = Judge(shared)
    assert {query.book_id: set(query.relatives) for query in judge._queries} == {1: {2, 3}, 2: {1}, 3: {1}, 4: set()}
    struck = {row.id: f"{row.title} {row.description}" for row in judge._struck}
    assert "Ottoline" not in struck[1] and "Quill" not in struck[2] and "Wet" not in struck[1] + struck[3]
    assert "Ottoline" in struck[4]  # shares the first name alone


class OneForAll:
    """Recommends the same books to everybody."""

    name = "one_for_all"

    def __init__(self, book_ids: NDArray[np.int64]) -> None:
        self.book_ids = book_ids

    @property
    def nbytes(self) -> int:
        return self.book_ids.nbytes

    def fold(self, rows: list[BookText]) -> OneForAll:
        return OneForAll(np.array([row.id for row in rows]))

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        return [Recommendation(int(other), 1.0, []) for other in self.book_ids[:limit] if other != book_id]


def test_a_model_that_recommends_one_book_to_all_is_never_promoted() -> None:
    many = [row._replace(id=48 * turn + row.id) for turn in range(10) for row in rows()]
    champion, challenger = Tfidf().fit(many), OneForAll(np.array([row.id for row in many]))
    judge = Judge(many)
    faults = list_health(challenger, many).faults()  # type: ignore[arg-type]
    assert any("one book stands in" in fault for fault in faults)
    assert not decide(judge.judge(challenger, faults), judge.judge(champion)).is_promoted  # type: ignore[arg-type]
    assert not decide(judge.judge(challenger), judge.judge(champion)).is_promoted  # type: ignore[arg-type]


class Planted:
    """What `recommend` of a real model gives, changed by `change(book_id, list)`."""

    name = "planted"

    def __init__(self, model: Tfidf, change: Callable[[int, list[Recommendation]], list[Recommendation]]) -> None:
        self.model, self.change, self.book_ids, self.nbytes = model, change, model.book_ids, model.nbytes

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        return self.change(book_id, self.model.recommend(book_id, len(self.book_ids)))[:limit]


@pytest.fixture(scope="module")
def shop() -> list[BookText]:
    """A made-up catalogue, in which one book stands twice."""
    made = generate(120, seed=4)
    return [
        BookText(at, book.title, made.description(book), f"{book.genre}", f"{book.genre}")
        for at, book in enumerate(made.books, 1)
    ]


@pytest.fixture(scope="module")
def sound(shop: list[BookText]) -> Tfidf:
    return Tfidf().fit(shop)


@pytest.mark.parametrize("number", [2, 20, 60, 120])
def test_a_sound_model_of_few_books_breaks_no_guardrail(shop: list[BookText], number: int) -> None:
    few = shop[:number]
    assert list_health(Tfidf(min_df=1).fit(few), few).faults() == []


def twice(_: int, near: list[Recommendation]) -> list[Recommendation]:
    return [near[0], *near]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda _, near: [one for one in near if one.book_id % 4 == 0], "of the books stand in any list"),
        (lambda book, near: near if book % 10 else [], "of the books have a list"),
        (lambda _, near: near[:5], "of the places in the lists are filled"),
        (lambda book, near: [near[0]._replace(book_id=book), *near], "lists hold their own book"),
        (twice, "lists hold a book twice"),
    ],
    ids=["a quarter of the shop", "no list for some", "half a list", "itself", "a book twice"],
)
def test_a_list_that_no_reader_should_see_is_a_fault(
    change: Callable[[int, list[Recommendation]], list[Recommendation]], fault: str, shop: list[BookText], sound: Tfidf
) -> None:
    faults = list_health(Planted(sound, change), shop).faults(list_health(sound, shop))  # type: ignore[arg-type]
    assert any(fault in text for text in faults), faults


def test_where_no_model_reaches_all_books_the_first_and_those_like_it_are_let_through(
    shop: list[BookText], sound: Tfidf
) -> None:
    """Else a shop with such books would have no model, for ever."""
    sparse = replace(list_health(sound, shop), reached=0.9, filled=0.7)
    assert sparse.faults() == [] and replace(sparse, reached=0.895).faults(sparse) == []
    assert len(replace(sparse, reached=0.85, filled=0.65).faults(sparse)) == 2
    assert len(replace(sparse, reached=0.4, filled=0.4).faults()) == 2


def test_two_editions_in_a_list_and_another_edition_of_its_own_book_are_faults(shop: list[BookText]) -> None:
    twins = [*shop, *(row._replace(id=1000 + row.id, title=f"{row.title.upper()}!") for row in shop[:20])]
    model = Tfidf().fit(twins)
    assert list_health(model, twins).faults() == []
    model = Tfidf().fit(twins)
    model.works_, model.lists_ = np.arange(len(twins), dtype=np.int32), None  # blind to editions
    faults = " ".join(list_health(model, twins).faults())
    assert "lists hold their own book" in faults and "lists hold a book twice" in faults


def test_of_a_large_catalogue_all_lists_are_judged_by_those_made_once(
    shop: list[BookText], sound: Tfidf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list_health(sound, shop)
    monkeypatch.setattr(_health, "MOST_LISTS", 30)
    monkeypatch.setattr(_health, "_AT_ONCE", 50)
    health = list_health(sound, shop)
    assert health.lists == 30 and health.reached == asked.reached
    narrow = Tfidf().fit(shop)
    assert narrow.lists_ is not None
    narrow.lists_.ids[narrow.lists_.ids % 4 > 0] = -1
    assert any("stand in any list" in fault for fault in list_health(narrow, shop).faults())
    narrow.lists_ = None
    assert np.isnan(list_health(narrow, shop).reached) and "reached" not in list_health(narrow, shop).figures


def test_a_model_twice_as_large_or_slow_as_the_champion_is_refused_unless_that_is_little(
    shop: list[BookText], sound: Tfidf
) -> None:
    champion = replace(list_health(sound, shop), megabytes=80, list_ms=4)
    assert champion.faults(champion) == [] and champion.list_ms > 0 and champion.megabytes > 0
    assert replace(champion, megabytes=99, list_ms=4.9).faults(replace(champion, megabytes=1, list_ms=0.1)) == []
    assert replace(champion, megabytes=159, list_ms=7.9).faults(champion) == []
    larger = replace(champion, megabytes=161, list_ms=8.1)
    size, latency = larger.faults(champion)
    assert larger.faults() == [] and "161 MB" in size and "8.1 ms" in latency
    assert not any("MB" in fault for fault in replace(larger, books=240, works=240).faults(champion)), "it has grown"


def test_size_and_time_of_a_model_are_measured(shop: list[BookText], sound: Tfidf, tmp_path: Path) -> None:
    sound.save(tmp_path)
    files = sum(path.stat().st_size for path in tmp_path.iterdir())
    health = list_health(sound, shop)
    assert 0.8 * files < health.megabytes * 1e6 < files

    def slowly(_: int, near: list[Recommendation]) -> list[Recommendation]:
        end = time.thread_time() + 0.006
        while time.thread_time() < end:
            pass
        return near

    slow = list_health(Planted(sound, slowly), shop[:30])  # type: ignore[arg-type]
    assert slow.list_ms > 6 and any("ms" in fault for fault in slow.faults(health))
