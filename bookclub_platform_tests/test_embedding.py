"""models/_embedding.py and what models/tfidf.py makes of it: the real small model, on texts written for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest

from bookclub_platform.core.errors import ArtifactInvalid, ConfigurationError
from bookclub_platform.models import Tfidf, _embedding, load_model
from bookclub_platform.models._embedding import Encoder, centred
from bookclub_platform_tests.test_tfidf import ROOT, TRAINERS, place, shelf
from bookclub_platform_tests.test_tfidf_artifact import put, rewrite_array

pytest.importorskip("onnxruntime", reason="needs the extra `embedding`")


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder()


@pytest.fixture(scope="module")
def model() -> Tfidf:
    return Tfidf(embedding="minilm").fit(shelf())


@pytest.fixture
def saved(model: Tfidf, tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    model.save(folder)
    return folder


def test_texts_of_one_sense_are_nearer_than_texts_of_one_word(encoder: Encoder) -> None:
    doctor, physician, bank, river = encoder.encode(
        ["A doctor heals the sick.", "The physician cures patients.", "She robs a bank.", "They sit on the river bank."]
    )
    assert doctor @ physician > 0.6 > bank @ river


def test_vectors_have_length_1_and_do_not_depend_on_the_texts_beside_them(encoder: Encoder) -> None:
    texts = ["A lighthouse.", "Sourdough, flour and a hot oven. " * 40, "", "\x00 \U0001f4da"]
    together = encoder.encode(texts)
    assert together.shape == (4, 384) and np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-5)
    assert np.array_equal(together, np.concatenate([encoder.encode([text]) for text in texts]))
    assert encoder.encode([]).shape == (0, 384)


def test_centring_leaves_directions_and_rows_without_text(encoder: Encoder) -> None:
    vectors = np.array([[1, 0], [0, 1], [0, 0], [0.5, 0.5]], dtype=np.float32)
    mean = np.array([0.5, 0.5], dtype=np.float32)
    root = 0.5**0.5
    assert centred(vectors, mean) == pytest.approx(np.array([[root, -root], [-root, root], [0, 0], [0, 0]]))


def test_a_score_is_the_two_cosines_by_their_weight_and_the_reasons_say_so(model: Tfidf) -> None:
    words_alone = Tfidf().fit(shelf())
    assert model.embedding_ is not None
    for at, book in enumerate(model.book_ids.tolist()):
        cosines = dict(zip(model.book_ids.tolist(), words_alone.index_.cosines(at).tolist(), strict=True))
        senses = dict(zip(model.book_ids.tolist(), (model.embedding_ @ model.embedding_[at]).tolist(), strict=True))
        for near in model.recommend(book, 100):
            sense = 0.25 * max(senses[near.book_id], 0)
            assert near.score == pytest.approx(0.75 * cosines[near.book_id] + sense, abs=1e-5)
            assert sum(reason.share for reason in near.why) == pytest.approx(near.score, abs=1e-6)
            said = [reason.share for reason in near.why if reason.kind == "embedding"]
            assert sum(said) == pytest.approx(sense, abs=1e-6)


def test_books_that_share_a_sense_and_no_word_are_found(model: Tfidf) -> None:
    lone, alike = place("Quiet"), place("Small Moons")
    assert alike in {near.book_id for near in model.recommend(lone, 100)}
    telescopes = [near.book_id for near in model.recommend(place("Orbits"), 3)]
    assert set(telescopes) & {place("Small Moons"), place("Telescope Weather")}


def test_a_saved_model_gives_the_same_lists_without_the_extra(model: Tfidf, saved: Path) -> None:
    loaded = load_model(saved)
    assert all(loaded.recommend(book, 100) == model.recommend(book, 100) for book in model.book_ids.tolist())
    program = f"""
import sys
from bookclub_platform.models import load_model
assert load_model({str(saved)!r}).recommend(100, 3)
print([name for name in {TRAINERS!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


DAMAGES = {
    "too few books": ("embedding.npy", lambda array: array[1:]),
    "too few dimensions": ("embedding.npy", lambda array: array[:, 1:]),
    "a flat list": ("embedding.npy", lambda array: array.ravel()),
    "no number": ("embedding.npy", put((0, 0), np.nan)),
    "endless": ("embedding.npy", put((0, 0), np.inf)),
    "far too long": ("embedding.npy", put((0, 0), 2)),
    "a short mean": ("embedding_mean.npy", lambda array: array[1:]),
    "a mean that is no number": ("embedding_mean.npy", put(0, np.nan)),
    "pickled": ("embedding.npy", lambda array: array.astype(object)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_embeddings_are_refused(damage: tuple, saved: Path, tmp_path: Path) -> None:  # type: ignore[type-arg]
    name, change = damage
    rewrite_array(saved, name, change)
    with pytest.raises(ArtifactInvalid, match="saved"):
        load_model(saved)
    shutil.rmtree(saved)


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(_embedding, "distribution", absent)
    with pytest.raises(ConfigurationError, match=r"\[embedding\].*BOOKCLUB_EMBEDDING=none"):
        Tfidf(embedding="minilm").fit(shelf())
    assert Tfidf().fit(shelf()).embedding_ is not None, "the default needs no extra"


def test_other_weights_than_those_judged_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_embedding, "_WEIGHTS", (*_embedding._WEIGHTS[:2], "0" * 64))
    with pytest.raises(ConfigurationError, match="SHA-256"):
        Encoder()
