"""models/_whole_lists.py beside a search: the same books and scores to the bit, whatever may be recommended."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks._texts import made_up
from bookclub_platform.models import Grown, Tfidf, _whole_lists, load_model

BOOKS = 600


@pytest.fixture(scope="module", params=["lsa", "none"])
def listed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tfidf:
    """Saved and loaded, with a work of three editions, a near double, and a book that has nothing in common."""
    rows = list(made_up(BOOKS, seed=4))
    for edition in (30, 31, 32):
        rows[edition] = rows[edition]._replace(title="Three Editions", description=rows[30].description)
    rows[7] = rows[7]._replace(description=rows[3].description, category=rows[3].category)
    rows[50] = rows[50]._replace(title="Zzyzx", description=None, category="default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_whole_lists, "_AT_ONCE", 10_000)  # many blocks
        model = Tfidf(embedding=request.param).fit(rows)
    folder = tmp_path_factory.mktemp("model")
    model.save(folder)
    loaded = load_model(folder)
    assert isinstance(loaded, Tfidf) and loaded.lists_ is not None
    return loaded


@pytest.fixture(scope="module")
def searching(listed: Tfidf, tmp_path_factory: pytest.TempPathFactory) -> Tfidf:
    folder = tmp_path_factory.mktemp("model")
    listed.save(folder)
    model = Tfidf.load(folder)
    model.lists_ = None
    return model


def masks() -> dict[str, NDArray[np.bool_] | None]:
    random = np.random.default_rng(2)
    only_second_edition = np.ones(BOOKS, dtype=np.bool_)
    only_second_edition[[30, 32]] = False
    return {
        "all": None,
        "most": random.random(BOOKS) < 0.9,
        "an eighth": random.random(BOOKS) < 0.125,
        "few": random.random(BOOKS) < 0.02,
        "none": np.zeros(BOOKS, dtype=np.bool_),
        "one edition of three": only_second_edition,
    }


@pytest.mark.parametrize("name", masks())
@pytest.mark.parametrize("limit", [1, 10, 70])
def test_a_list_made_once_is_that_of_a_search_to_the_bit(
    listed: Tfidf, searching: Tfidf, name: str, limit: int
) -> None:
    mask = masks()[name]
    for book_id in (*listed.book_ids[::20].tolist(), *listed.book_ids[[3, 7, 30, 31, 50]].tolist()):
        expected = searching.recommend(book_id, limit, mask)
        assert listed.recommend(book_id, limit, mask) == expected
        for model in (listed, searching):
            grown = Grown(model)
            assert grown.nearest(grown.probe([book_id]), limit, mask) == expected


def test_the_first_hundred_are_kept_of_each_book(listed: Tfidf, searching: Tfidf) -> None:
    assert listed.lists_ is not None
    assert listed.lists_.ids.shape == (BOOKS, _whole_lists.LENGTH)
    assert all(np.all(np.diff(scores) <= 0) for scores in listed.lists_.scores)
    searched = [near.book_id for near in searching.recommend(int(listed.book_ids[3]), 60)]
    assert listed.book_ids[listed.lists_.ids[3][:60]].tolist()[:30] == searched[:30]
