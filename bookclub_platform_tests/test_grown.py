"""A model and the books that came since: the same lists as of one model of all, whatever is asked."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from benchmarks._texts import made_up
from bookclub_platform.models import BookText, Grown, Recommendation, Tfidf, find
from bookclub_platform.models import _grown as grown_module
from bookclub_platform.models._stop_words import STOP_WORDS

BOOKS, LEARNED = 400, 300


@pytest.fixture(scope="module")
def rows() -> list[BookText]:
    """Books of which some repeat the title of another, in another case."""
    found = list(made_up(BOOKS, seed=5))
    for new, old in ((310, 20), (311, 312), (350, 299)):
        found[new] = found[new]._replace(title=found[old].title.upper())
    return found


@pytest.fixture(scope="module")
def model(rows: list[BookText]) -> Tfidf:
    return Tfidf().fit(rows[:LEARNED])


@pytest.fixture(scope="module")
def grown(model: Tfidf, rows: list[BookText]) -> Grown:
    """Grown in three steps, one of them in no order, with books that were learned with other texts."""
    changed = [row._replace(description=rows[-row.id].description) for row in rows[:30]]
    first = Grown(model).grow(changed)
    second = first.grow([*reversed(rows[LEARNED + 50 :]), *rows[:10]])
    return second.grow(rows[LEARNED : LEARNED + 50])


@pytest.fixture(scope="module")
def whole(model: Tfidf, rows: list[BookText]) -> Tfidf:
    """What a batch makes of the rows as they then are."""
    changed = [row._replace(description=rows[-row.id].description) for row in rows[10:30]]
    return model.fold([*rows[:10], *changed, *rows[30:]])


def same(found: list[Recommendation], expected: list[Recommendation]) -> None:
    assert [near.book_id for near in found] == [near.book_id for near in expected]
    assert np.allclose([near.score for near in found], [near.score for near in expected], atol=1e-6)
    for near, other in zip(found, expected, strict=True):
        # Shares that are equal but for rounding may stand in another order.
        assert np.allclose([why.share for why in near.why], [why.share for why in other.why], atol=1e-6)


def test_every_list_is_that_of_a_batch_over_all_books(grown: Grown, whole: Tfidf) -> None:
    for book_id in whole.book_ids.tolist():
        same(grown.nearest(grown.probe([book_id]), 10), whole.recommend(book_id, 10))


def test_a_mask_by_place_filters_as_a_mask_of_the_batch_does(grown: Grown, whole: Tfidf) -> None:
    by_place = (grown.ids % 3 > 0) & grown.is_current
    for book_id in whole.book_ids[::7].tolist():
        same(grown.nearest(grown.probe([book_id]), 10, by_place), whole.recommend(book_id, 10, whole.book_ids % 3 > 0))


def test_a_work_stands_once_in_a_list_and_never_in_its_own_old_or_new(grown: Grown, rows: list[BookText]) -> None:
    title = {row.id: row.title.casefold() for row in rows}
    for book_id in (21, 311, 312, 313, 351, 300):
        titles = [title[near.book_id] for near in grown.nearest(grown.probe([book_id]), 200)]
        assert title[book_id] not in titles and len(set(titles)) == len(titles)


def test_what_is_known_with_another_text_or_not_at_all_is_outdated(grown: Grown, whole: Tfidf) -> None:
    ids, prints = whole.book_ids, whole.prints_.copy()
    assert grown.outdated(ids, prints).tolist() == []
    prints[[3, 15, 320]] += 1
    assert grown.outdated(np.append(ids, 999), np.append(prints, 1)).tolist() == [4, 16, 321, 999]
    assert len(Grown(grown.base).outdated(ids, whole.prints_)) == BOOKS - LEARNED + 20


def test_growing_leaves_the_one_before_as_it_was(model: Tfidf, rows: list[BookText]) -> None:
    before = Grown(model).grow(rows[LEARNED : LEARNED + 5])
    lists = before.nearest(before.probe([301]), 10)
    after = before.grow([rows[300]._replace(description="nothing of the kind"), *rows[306:320]])
    assert before.nearest(before.probe([301]), 10) == lists != after.nearest(after.probe([301]), 10)
    with pytest.raises(KeyError):
        before.place(310)
    assert after.base is model and np.shares_memory(after.base.index_.by_book.data, model.index_.by_book.data)


def test_several_books_are_answered_by_the_mean_of_their_scores(grown: Grown, whole: Tfidf) -> None:
    liked = [5, 120, 333]
    places = np.searchsorted(whole.book_ids, liked)
    assert whole.embedding_ is not None
    words = np.mean([whole.index_.cosines(int(at)) for at in places], axis=0)
    mean = 0.75 * words + 0.25 * np.maximum(whole.embedding_ @ whole.embedding_[places].mean(axis=0), 0)
    mean[np.isin(whole.works_, whole.works_[places])] = 0
    found = grown.nearest(grown.probe(liked), 10)
    assert np.allclose([near.score for near in found], np.sort(mean)[-10:][::-1], atol=1e-6)
    for near in found:
        assert sum(why.share for why in near.why) == pytest.approx(near.score, abs=1e-6)


def test_a_text_is_answered_as_a_book_of_that_description_and_no_title_would_be(
    grown: Grown, model: Tfidf, rows: list[BookText]
) -> None:
    text = rows[42].description or ""
    asked = model.fold([*rows[:42], *rows[43:300], BookText(9999, "", text, "", "")])
    found = Grown(model).nearest(Grown(model).probe_of_text(text), 10, model.book_ids != 43)
    same(found, asked.recommend(9999, 10))
    assert grown.nearest(grown.probe_of_text(text), 1)[0].book_id == 43
    assert grown.nearest(grown.probe_of_text("\ud800 qqqq the"), 10) == []


def test_what_is_excluded_is_in_no_list_nor_is_its_work(grown: Grown) -> None:
    probe = grown.probe([50])
    plain = grown.nearest(probe, 12)
    without = grown.nearest(probe, 10, exclude=[plain[0].book_id, plain[4].book_id, 123456])
    assert without == [near for at, near in enumerate(plain) if at not in (0, 4)]


def likeness(whole: Tfidf, found: list[Recommendation]) -> NDArray[np.float64]:
    places = np.searchsorted(whole.book_ids, [near.book_id for near in found])
    alike = np.array([whole._scores(int(at))[places] for at in places])
    return alike[np.triu_indices(len(places), 1)]


def test_a_diverse_list_is_the_one_that_maximal_marginal_relevance_defines(grown: Grown, whole: Tfidf) -> None:
    probe, diversity = grown.probe([77]), 0.4
    pool = grown.nearest(probe, 100)
    places = np.searchsorted(whole.book_ids, [near.book_id for near in pool])
    alike = np.array([whole._scores(int(at))[places] for at in places])
    chosen: list[int] = []
    while len(chosen) < 10:
        merit = [
            (1 - diversity) * near.score - diversity * max((alike[at, other] for other in chosen), default=0)
            if at not in chosen
            else -9
            for at, near in enumerate(pool)
        ]
        chosen.append(int(np.argmax(merit)))
    assert grown.nearest(probe, 10, diversity=diversity) == [pool[at] for at in chosen]


def test_more_diversity_makes_a_list_less_alike_and_none_leaves_it(grown: Grown, whole: Tfidf) -> None:
    probe = grown.probe([350])
    means = [likeness(whole, grown.nearest(probe, 10, diversity=share)).mean() for share in (0, 0.5, 1)]
    assert means[0] > means[1] > means[2]
    assert [near.book_id for near in grown.nearest(probe, 5, diversity=1e-9)] == [
        near.book_id for near in grown.nearest(probe, 5)
    ]


def test_a_list_made_once_and_a_bounded_search_give_what_a_scan_gives(
    rows: list[BookText], monkeypatch: pytest.MonkeyPatch
) -> None:
    scanning = Grown(Tfidf(embedding="none").fit(rows[:LEARNED])).grow(rows[LEARNED:])
    scanning.base.lists_ = None
    expected = [scanning.nearest(scanning.probe([book_id]), 10) for book_id in range(1, 60)]
    monkeypatch.setattr("bookclub_platform.models.tfidf.UP_TO", 0)
    monkeypatch.setattr(grown_module, "SCANNED", 0)
    listed = Grown(Tfidf(embedding="none").fit(rows[:LEARNED])).grow(rows[LEARNED:])
    assert listed.base.lists_ is not None
    for book_id, found in enumerate(expected, 1):
        same(listed.nearest(listed.probe([book_id]), 10), found)


def test_a_folded_book_without_its_embedding_is_scored_by_words_alone(rows: list[BookText]) -> None:
    model = Tfidf(embedding="minilm", embedding_weight=0.25)
    words = Tfidf(embedding="none").fit(rows[:LEARNED])
    model.__dict__ |= {key: value for key, value in words.__dict__.items() if key not in model.parameters}
    random = np.random.default_rng(0).normal(size=(LEARNED, 384)).astype(np.float32)
    model.embedding_ = random / np.linalg.norm(random, axis=1, keepdims=True)
    model.embedding_mean_ = np.zeros(384, dtype=np.float32)
    grown = Grown(model).grow(rows[LEARNED:])
    alone = Grown(words).grow(rows[LEARNED:])
    found = grown.nearest(grown.probe([350]), 10)
    expected = alone.nearest(alone.probe([350]), 10)
    assert [near.book_id for near in found] == [near.book_id for near in expected]
    assert np.allclose([near.score for near in found], [0.75 * near.score for near in expected], atol=1e-6)
    assert not [why for near in found for why in near.why if why.kind == "embedding"]
    learned = grown.nearest(grown.probe([7]), 10)
    same([near for near in learned if near.book_id <= LEARNED][:5], model.recommend(7, 5))


def test_stop_words_are_those_of_scikit_learn_but_for_twelve_that_say_something() -> None:
    assert STOP_WORDS < ENGLISH_STOP_WORDS and len(ENGLISH_STOP_WORDS - STOP_WORDS) == 12
    assert {"fire", "system", "thin"} <= ENGLISH_STOP_WORDS - STOP_WORDS


def test_books_that_came_one_after_the_other_are_found_by_free_text() -> None:
    rows = [
        BookText(at, f"The {word} of the {word}s", f"A {word} and another {word}.", "sea", "Sea")
        for at, word in enumerate(["whale", "harbour", "storm", "tide", "sailor", "anchor"] * 3, 1)
    ]
    grown = Grown(Tfidf().fit(rows))
    for at, title in ((101, "Zeppelins at Dusk"), (102, "Marmalade Mornings"), (103, "Quicksilver Nights")):
        grown = grown.grow([BookText(at, title, "A tale.", "sea", "Sea")])
    assert grown.fresh is not None
    for at, asked in ((101, "zeppelins dusk"), (102, "marmalade"), (103, "quicksilvr nights"), (1, "whale")):
        found = find([grown.base, grown.fresh], asked, 10)
        assert found is not None and at in found.scores, asked
