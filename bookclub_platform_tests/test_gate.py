"""Which retrains become champion: planted ones of every kind."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bookclub_platform.models import BookText, Judge, Judgement, Recommendation, Tfidf, decide, list_health
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

    def fold(self, rows: list[BookText]) -> OneForAll:
        return OneForAll(np.array([row.id for row in rows]))

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        return [Recommendation(int(other), 1.0, []) for other in self.book_ids[:limit] if other != book_id]


def test_a_model_that_recommends_one_book_to_all_is_never_promoted() -> None:
    many = [row._replace(id=48 * turn + row.id) for turn in range(10) for row in rows()]
    champion, challenger = Tfidf().fit(many), OneForAll(np.array([row.id for row in many]))
    judge = Judge(many)
    faults = list_health(challenger).faults()  # type: ignore[arg-type]
    assert any("one book stands in" in fault for fault in faults)
    assert not decide(judge.judge(challenger, faults), judge.judge(champion)).is_promoted  # type: ignore[arg-type]
    assert not decide(judge.judge(challenger), judge.judge(champion)).is_promoted  # type: ignore[arg-type]
