"""models/_nearest.py beside brute force, on a made-up shelf large enough for each of its ways."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks._texts import made_up
from bookclub_platform.core.errors import ArtifactInvalid
from bookclub_platform.models import Tfidf, _index, tfidf
from bookclub_platform.models._artifact import read_manifest, seal
from bookclub_platform.models._lists import Lists
from bookclub_platform.models._nearest import LENGTH, MIN_RECALL, nearest_lists, recall
from bookclub_platform_tests.test_tfidf import SHARED, real_books

K = 20
BOOKS = 1_500


@pytest.fixture(scope="module")
def model() -> Tfidf:
    rows = list(made_up(BOOKS, seed=3))
    rows[7] = rows[7]._replace(description=rows[3].description, category=rows[3].category)  # a near double
    rows[40] = rows[40]._replace(title=rows[3].title, description=rows[3].description)  # another edition
    rows[50] = rows[50]._replace(title="Zzyzx", description=None, category="default")  # nothing in common
    return Tfidf(embedding="none").fit(rows)


@pytest.fixture(scope="module")
def brute_force(model: Tfidf) -> Lists:
    """From the whole matrix of cosines, with nothing but a sort."""
    by_book = model.index_.by_book
    dense = np.zeros((BOOKS, len(model.vocabulary_)))
    dense[np.repeat(np.arange(BOOKS), np.diff(by_book.indptr)), by_book.indices] = by_book.data
    cosines = (dense @ dense.T).astype(np.float32)
    ids, scores = np.full((BOOKS, K), -1, np.int32), np.zeros((BOOKS, K), np.float32)
    for at, row in enumerate(cosines):
        seen = {model.works_[at]}
        for other in np.lexsort((np.arange(BOOKS), -row)):
            if row[other] > 0 and model.works_[other] not in seen and len(seen) <= K:
                ids[at, len(seen) - 1], scores[at, len(seen) - 1] = other, row[other]
                seen.add(model.works_[other])
    return Lists(ids, scores)


def near_ties(scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Places whose neighbour in the list is so near that rounding decides which is first."""
    close = np.abs(np.diff(scores, axis=1, append=-1)) < 1e-6
    return close | np.roll(close, 1, axis=1)


def test_exact_lists_are_those_of_brute_force(model: Tfidf, brute_force: Lists) -> None:
    lists, figures = nearest_lists(model.index_, model.works_, K)
    assert figures.recall_at_10 == 1 and figures.budget == 0
    assert np.allclose(lists.scores, brute_force.scores, atol=1e-6)
    different = (lists.ids != brute_force.ids) & ~near_ties(brute_force.scores)
    assert not different[:, :-1].any()
    assert (brute_force.ids[50] == -1).all() and (lists.ids[50] == -1).all()


def test_two_stages_find_nearly_all_and_tell_how_many(model: Tfidf, brute_force: Lists) -> None:
    lists, figures = nearest_lists(model.index_, model.works_, K, exact_up_to=0)
    assert figures.method == "two stages" and figures.budget > 0
    assert figures.recall_at_10 >= 0.98
    assert recall(lists, brute_force) == pytest.approx(figures.recall_at_10, abs=0.01)
    assert recall(lists, brute_force) >= MIN_RECALL - 0.01


def test_what_two_stages_score_they_score_by_all_terms(model: Tfidf, brute_force: Lists) -> None:
    lists, _ = nearest_lists(model.index_, model.works_, K, exact_up_to=0)
    for at in range(0, BOOKS, 10):
        _, mine, theirs = np.intersect1d(lists.ids[at], brute_force.ids[at], return_indices=True)
        assert np.allclose(lists.scores[at, mine], brute_force.scores[at, theirs], atol=1e-6)


def test_the_lists_do_not_depend_on_the_threads(model: Tfidf) -> None:
    for exact_up_to in (0, BOOKS):
        one, three = (
            nearest_lists(model.index_, model.works_, K, exact_up_to=exact_up_to, threads=threads)[0]
            for threads in (1, 3)
        )
        assert np.array_equal(one.ids, three.ids) and np.array_equal(one.scores, three.scores)


def test_the_index_is_left_as_it_was(model: Tfidf) -> None:
    before = [part.copy() for part in model.index_.by_book]
    nearest_lists(model.index_, model.works_, K)
    assert all(np.array_equal(old, new) for old, new in zip(before, model.index_.by_book, strict=True))


def test_no_list_holds_its_own_work_or_a_work_twice(model: Tfidf) -> None:
    for exact_up_to in (0, BOOKS):
        lists, _ = nearest_lists(model.index_, model.works_, K, exact_up_to=exact_up_to)
        for at, listed in enumerate(lists.ids):
            works = [model.works_[at], *model.works_[listed[listed >= 0]]]
            assert len(set(works)) == len(works)


def test_recall_counts_what_is_missing() -> None:
    exact = Lists(np.array([[1, 2, 3, -1]], np.int32), np.array([[0.9, 0.8, 0.7, 0]], np.float32))
    poor = Lists(np.array([[1, 3, 4, -1]], np.int32), np.array([[0.9, 0.7, 0.1, 0]], np.float32))
    assert recall(exact, exact) == 1
    assert recall(poor, exact) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("share", "least_recall"), [(0.02, 1.0), (0.5, 1.0)])
def test_a_filtered_list_is_exact_where_the_filter_leaves_few(model: Tfidf, share: float, least_recall: float) -> None:
    assert filtered_recall(model, share) == least_recall


def test_a_wide_filter_costs_little_and_misses_little(model: Tfidf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "NARROW", 0)
    monkeypatch.setattr(_index, "STEPS", (BOOKS,))
    monkeypatch.setattr(_index, "SCORED", 100)
    assert filtered_recall(model, 0.5) > 0.95


def test_a_rare_filter_has_more_postings_read_than_a_wide_one(model: Tfidf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "NARROW", 0)
    monkeypatch.setattr(_index, "SCORED", BOOKS)
    monkeypatch.setattr(_index, "STEPS", (10, BOOKS // 10, 100 * BOOKS))
    monkeypatch.setattr(_index, "ALLOWED_POSTINGS", BOOKS // 40)
    assert filtered_recall(model, 0.02) == 1  # before so many are found all are read
    wide = filtered_recall(model, 0.9)
    monkeypatch.setattr(_index, "ALLOWED_POSTINGS", 1)
    assert filtered_recall(model, 0.9) < wide < 1


def test_a_book_that_has_nothing_in_common_has_an_empty_list_behind_any_filter(
    model: Tfidf, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = _index.Vector(np.empty(0, np.int32), np.empty(0, np.float32))
    for narrow in (0, BOOKS):
        monkeypatch.setattr(_index, "NARROW", narrow)
        places, scores = model.index_.among(nothing, np.ones(BOOKS, np.bool_), model.works_, 10)
        assert len(places) == len(scores) == 0


def test_more_are_scored_where_those_scored_at_first_do_not_settle_it(
    model: Tfidf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_index, "NARROW", 0)
    monkeypatch.setattr(_index, "STEPS", (BOOKS // 5,))
    monkeypatch.setattr(_index, "FIRST", 40)
    with_the_rest = filtered_recall(model, 0.5)
    monkeypatch.setattr(_index, "SCORED", 40)
    assert filtered_recall(model, 0.5) < 0.99 < with_the_rest


@pytest.mark.parametrize("few", [0, 10**9])
def test_columns_alike_in_their_last_bits_are_told_apart(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "FEW", few)
    columns = np.array([3, 3 + 2**16], np.int32)
    entries = ([1.0, 1.0, 0.8, 0.6], ([0, 1, 2, 2], columns[[0, 1, 0, 1]]))
    by_book = csr_matrix(entries, shape=(3, 2**18), dtype=np.float32)
    index = _index.InvertedIndex(_index.Compressed.of(by_book), _index.Compressed.of(by_book.T.tocsr()))
    assert index.cosines_of(2, np.arange(3)).tolist() == index.cosines(2).tolist()
    assert index.cosines_of(2, np.arange(3)).tolist() == pytest.approx([0.8, 0.6, 1.0])


@pytest.mark.parametrize("few", [0, 10**9])
@pytest.mark.parametrize("limit", [1, 5, 10**6])
def test_what_books_share_is_what_their_vectors_share(
    model: Tfidf, few: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_index, "FEW", few)
    by_book, others = model.index_.by_book, np.array([3, 50, 8, 7, 900, 3])
    dense = csr_matrix((by_book.data, by_book.indices, by_book.indptr), shape=(BOOKS, len(model.vocabulary_))).toarray()
    shared = model.index_.shared(7, others, limit)
    for rank, products in enumerate(dense[7] * dense[others]):
        largest = np.lexsort((np.arange(len(products)), -products))[: min(limit, np.count_nonzero(products))]
        own = slice(shared.bounds[rank], shared.bounds[rank + 1])
        assert shared.columns[own].tolist() == largest.tolist()
        assert shared.products[own].tolist() == products[largest].tolist()
        assert shared.counts[rank] == np.count_nonzero(products)
        assert shared.totals[rank] == pytest.approx(products.sum(), rel=1e-6)


def filtered_recall(model: Tfidf, share: float) -> float:
    """recall@10 of `among` over 100 books, against all cosines; fails where a book is not allowed or a score wrong."""
    is_allowed = np.random.default_rng(1).random(BOOKS) < share
    found = []
    for book in range(100, 200):
        places, scores = model.index_.among(book, is_allowed, model.works_, 10)
        exact = model.index_.cosines(book)
        exact[~is_allowed | (model.works_ == model.works_[book])] = 0
        assert is_allowed[places].all() and np.allclose(scores, exact[places])
        found.append((scores >= np.sort(exact)[-10] - 1e-9).sum() / min(10, np.count_nonzero(exact)))
    return float(np.mean(found))


@pytest.fixture(scope="module")
def large(model: Tfidf) -> Iterator[Tfidf]:
    """The same books with lists made once, as a model of many more has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tfidf, "UP_TO", 0)
        yield Tfidf(embedding="none").fit(list(made_up(BOOKS, seed=3)))


def test_a_request_answers_the_same_from_a_list_as_by_a_search(large: Tfidf, tmp_path: Path) -> None:
    large.save(tmp_path)
    loaded, searching = Tfidf.load(tmp_path), Tfidf.load(tmp_path)
    searching.lists_ = None
    is_allowed = np.arange(BOOKS) % 3 > 0
    for book_id in large.book_ids[:200].tolist():
        for limit, allowed in ((10, None), (K + 5, None), (10, is_allowed)):
            listed, searched = (model.recommend(book_id, limit, allowed) for model in (loaded, searching))
            assert [near.score for near in listed] == pytest.approx([near.score for near in searched], abs=1e-6)
            assert all(sum(why.share for why in near.why) == pytest.approx(near.score) for near in listed)
            assert allowed is None or all(allowed[np.searchsorted(large.book_ids, near.book_id)] for near in listed)


def test_the_shorter_lists_of_an_older_model_are_read_and_longer_ones_no_burden_beside_it(
    large: Tfidf, tmp_path: Path
) -> None:
    large.save(tmp_path)
    older = Tfidf.load(tmp_path)
    assert older.lists_ is not None and older.lists_.ids.shape == (BOOKS, LENGTH)
    older.lists_ = Lists(*(np.ascontiguousarray(part[:, :20]) for part in older.lists_))
    older.save(tmp_path / "older")
    older = Tfidf.load(tmp_path / "older")
    is_allowed = np.arange(BOOKS) % 2 > 0
    for book_id in large.book_ids[::50].tolist():
        for allowed in (None, is_allowed):
            one, other = (model.recommend(book_id, 10, allowed) for model in (large, older))
            assert [near.score for near in one] == pytest.approx([near.score for near in other], abs=1e-6)
    assert older.nbytes < large.nbytes < 1.5 * older.nbytes


@pytest.mark.parametrize(
    ("name", "value"), [("nearest.ids", BOOKS), ("nearest.ids", -2), ("nearest.scores", np.nan), ("nearest.scores", 2)]
)
def test_lists_that_lead_out_of_the_model_are_refused(large: Tfidf, tmp_path: Path, name: str, value: float) -> None:
    large.save(tmp_path)
    array = np.load(tmp_path / f"{name}.npy")
    array[5, 3] = value
    np.save(tmp_path / f"{name}.npy", array)
    manifest = read_manifest(tmp_path)
    (tmp_path / "manifest.json").unlink()
    seal(tmp_path, manifest.format, manifest.version, manifest.parameters, manifest.counts)
    with pytest.raises(ArtifactInvalid, match="outside 0"):
        Tfidf.load(tmp_path)


@pytest.mark.skipif(not SHARED.exists(), reason="the real shop's texts lie beside the repository")
def test_two_stages_find_nearly_all_among_real_texts_too() -> None:
    real = Tfidf(embedding="none").fit([text for _, text in real_books()])
    exact, _ = nearest_lists(real.index_, real.works_)
    lists, figures = nearest_lists(real.index_, real.works_, exact_up_to=0)
    assert figures.method == "two stages" and figures.budget < 10_000
    assert recall(lists, exact) >= 0.98
    expected = real.index_.cosines(0)
    expected[real.works_ == real.works_[0]] = 0
    assert np.allclose(exact.scores[0], np.sort(expected)[::-1][:LENGTH], atol=1e-6)
