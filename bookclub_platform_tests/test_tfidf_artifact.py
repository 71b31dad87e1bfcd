"""Files of a model that were cut, altered or made to harm: each is refused in a sentence, and nothing is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bookclub_platform.core.errors import ArtifactInvalid
from bookclub_platform.models import Tfidf, _artifact, load_model
from bookclub_platform.models._stems import STEM_ARRAYS
from bookclub_platform_tests.test_tfidf import SHELF, model, saved

__all__ = ["model", "saved"]
Damage = Callable[[Path], object]


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Put `content` into the file and a true seal of it into the manifest, as somebody who means harm would."""
    (folder / name).write_bytes(content)
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: seal_of(content)}))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4] ^= 1
    path.write_bytes(content)


def link_elsewhere(path: Path) -> None:
    """Put a link to the very same bytes in its place."""
    path.rename(path.with_suffix(".moved"))
    path.symlink_to(path.with_suffix(".moved"))


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def with_header(folder: Path, header: str) -> None:
    """An array file whose header says `header`, over the content of the true one."""
    text = header.encode().ljust(118) + b"\n"
    head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    rewrite(folder, "idf.npy", head + (folder / "idf.npy").read_bytes()[128:])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def seal_of(content: bytes) -> dict[str, Any]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def rewrite_array(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    changed = change(np.load(folder / name))
    np.save(folder / name, changed, allow_pickle=True)
    rewrite(folder, name, (folder / name).read_bytes())


def with_parameters(**changed: object) -> Damage:
    return lambda folder: edit_manifest(folder, lambda found: found["parameters"].update(changed))


def put(index: int | tuple[int, int], value: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[index] = value
        return array

    return change


def more_categories(manifest: dict[str, Any]) -> dict[str, int]:
    """Counts that add up, with more categories than there are columns."""
    columns = manifest["counts"]["terms"] + manifest["counts"]["categories"]
    return {"categories": columns + 5, "terms": -5}


HEADER = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"
DAMAGES: dict[str, Damage] = {
    "no folder": lambda folder: shutil.rmtree(folder),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "torn manifest": lambda folder: (folder / "manifest.json").write_bytes(b'{"format": "tfidf'),
    "manifest not text": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe\x00"),
    "manifest a list": lambda folder: (folder / "manifest.json").write_text("[]"),
    "manifest nested without end": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "another format": lambda folder: edit_manifest(folder, lambda found: found.update(format="other")),
    "a later version": lambda folder: edit_manifest(folder, lambda found: found.update(version=2)),
    "an unknown key": lambda folder: edit_manifest(folder, lambda found: found.update(code="import os")),
    "an unknown parameter": lambda folder: edit_manifest(folder, lambda found: found["parameters"].update(x=1)),
    "a parameter of another type": lambda folder: edit_manifest(
        folder, lambda found: found["parameters"].update(unknown_categories=5)
    ),
    "other counts": lambda folder: edit_manifest(folder, lambda found: found["counts"].update(books=7)),
    "too many categories": lambda folder: edit_manifest(
        folder, lambda found: found["counts"].update(more_categories(found))
    ),
    "no categories count": lambda folder: edit_manifest(folder, lambda found: found["counts"].pop("categories")),
    "one file too few": lambda folder: edit_manifest(folder, lambda found: found["files"].pop("idf.npy")),
    "a file outside": lambda folder: edit_manifest(
        folder, lambda found: found["files"].update({"../idf.npy": seal_of(b"")})
    ),
    "a missing file": lambda folder: (folder / "works.npy").unlink(),
    "a folder for a file": lambda folder: replace_by_folder(folder / "works.npy"),
    "a cut file": lambda folder: (folder / "idf.npy").write_bytes((folder / "idf.npy").read_bytes()[:-4]),
    "a flipped bit": lambda folder: flip_bit(folder / "idf.npy"),
    "a link": lambda folder: link_elsewhere(folder / "works.npy"),
    "a pipe that never ends": lambda folder: replace_by_pipe(folder / "works.npy"),
    "a link for a manifest": lambda folder: link_elsewhere(folder / "manifest.json"),
    "a shape beyond the file": lambda folder: with_header(folder, HEADER.format("(4000000000,)")),
    "a shape beyond memory": lambda folder: with_header(folder, HEADER.format("(4611686018427387904,)")),
    "a shape beyond numbers": lambda folder: with_header(folder, HEADER.format(f"({2**70},)")),
    "a shape below 0": lambda folder: with_header(folder, HEADER.format("(-1,)")),
    "a header that is code": lambda folder: with_header(folder, "__import__('os').system('false')"),
    "a header nested without end": lambda folder: with_header(folder, "(" * 5_000),
    "a rarity that is no number": lambda folder: rewrite_array(folder, "idf.npy", put(0, np.nan)),
    "an endless rarity": lambda folder: rewrite_array(folder, "idf.npy", put(0, np.inf)),
    "a book below 0": lambda folder: rewrite_array(folder, "book_ids.npy", put(0, -1)),
    "words that count without end": with_parameters(title_weight=10**9),
    "words that count as text": with_parameters(title_weight="x"),
    "a category beyond numbers": with_parameters(category_weight=1e308),
    "a category that is no number": with_parameters(category_weight=None),
    "no share of the books": with_parameters(min_df=0),
    "embeddings of more books than said": with_parameters(embedding_up_to=len(SHELF) - 1),
    "embeddings that were not to be": with_parameters(embedding="none"),
    "a rarity of no word": lambda folder: rewrite_array(folder, "idf.npy", put(0, 1e30)),
    "a mean far away": lambda folder: rewrite_array(folder, "embedding_mean.npy", put(0, 3e38)),
    "a direction without end": lambda folder: rewrite_array(folder, "embedding_components.npy", put((0, 0), 3e38)),
    "a direction that is no number": lambda folder: rewrite_array(
        folder, "embedding_components.npy", put((0, 0), np.nan)
    ),
    "an unknown embedding": lambda folder: edit_manifest(
        folder, lambda found: found["parameters"].update(embedding="other")
    ),
    "an embedding without its files": lambda folder: edit_manifest(
        folder, lambda found: found["parameters"].update(embedding="minilm")
    ),
    "a weight that is text": lambda folder: edit_manifest(
        folder, lambda found: found["parameters"].update(embedding_weight="1")
    ),
    "an empty array file": lambda folder: rewrite(folder, "idf.npy", b""),
    "a sealed cut file": lambda folder: rewrite(folder, "idf.npy", (folder / "idf.npy").read_bytes()[:-4]),
    "a zip": lambda folder: rewrite(folder, "idf.npy", b"PK\x03\x04" + bytes(60)),
    "a pickle": lambda folder: rewrite_array(folder, "idf.npy", lambda array: array.astype(object)),
    "a matrix": lambda folder: rewrite_array(folder, "idf.npy", lambda array: array[:, None]),
    "other numbers": lambda folder: rewrite_array(folder, "idf.npy", lambda array: array.astype(np.float64)),
    "a foreign byte order": lambda folder: rewrite_array(folder, "idf.npy", lambda array: array.astype(">f4")),
    "fewer weights": lambda folder: rewrite_array(folder, "idf.npy", lambda array: array[1:]),
    "fewer works": lambda folder: rewrite_array(folder, "works.npy", lambda array: array[1:]),
    "books out of order": lambda folder: rewrite_array(folder, "book_ids.npy", lambda array: array[::-1]),
    "a book twice": lambda folder: rewrite_array(folder, "book_ids.npy", put(1, 100)),
    "a column too high": lambda folder: rewrite_array(folder, "by_book.indices.npy", put(0, 2**31 - 1)),
    "a column below 0": lambda folder: rewrite_array(folder, "by_book.indices.npy", put(0, -1)),
    "a book too high": lambda folder: rewrite_array(folder, "by_column.indices.npy", put(0, len(SHELF))),
    "bounds beyond the end": lambda folder: rewrite_array(folder, "by_book.indptr.npy", put(-1, 2**60)),
    "bounds that fall": lambda folder: rewrite_array(folder, "by_column.indptr.npy", put(1, 10**6)),
    "no bounds": lambda folder: rewrite_array(folder, "by_book.indptr.npy", lambda array: array[:0]),
    "fewer values": lambda folder: rewrite_array(folder, "by_column.data.npy", lambda array: array[1:]),
    "a value that is no number": lambda folder: rewrite_array(folder, "by_book.data.npy", put(0, np.nan)),
    "an endless value": lambda folder: rewrite_array(folder, "by_column.data.npy", put(0, np.inf)),
    "vocabulary of numbers": lambda folder: rewrite(folder, "vocabulary.json", b"[1, 2]"),
    "vocabulary too short": lambda folder: rewrite(folder, "vocabulary.json", b'["sea"]'),
    "vocabulary no list": lambda folder: rewrite(folder, "vocabulary.json", b'{"sea": 1}'),
    "vocabulary nested without end": lambda folder: rewrite(folder, "vocabulary.json", b"[" * 100_000),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_or_hostile_artifact_is_refused(
    damage: Callable[[Path], object], saved: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    assert load_model(folder)
    damage(folder)
    with pytest.raises(ArtifactInvalid, match=r"copy.*\. Remove that folder"):
        load_model(folder)


def test_a_long_vocabulary_is_read_by_the_word(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _artifact.read_list(saved / "vocabulary.json")
    monkeypatch.setattr(_artifact, "_LARGE_BYTES", 1)
    monkeypatch.setattr(_artifact, "_AT_ONCE", 7)
    mapped = _artifact.read_list(saved / "vocabulary.json")
    assert not isinstance(mapped, list) and mapped == whole and mapped[-3:] == whole[-3:]
    assert [mapped[at] for at in range(len(whole))] == whole and mapped[-1] == whole[-1]
    with pytest.raises(IndexError):
        mapped[len(whole)]
    for content in (
        '[\n"a",\n"b", "c"\n]\n',
        "[\n1,\n2\n]\n",
        '["a"]',
        "[]",
        '[\n"a"\n',
        '{\n"a",\n"b"\n}\n',
        "\n\n\n",
    ):
        (tmp_path / "list.json").write_text(content)
        with pytest.raises(ArtifactInvalid):
            _artifact.read_list(tmp_path / "list.json")


def test_a_model_of_an_earlier_release_without_stems_folds_alike(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(saved, folder)
    model = load_model(folder)
    assert isinstance(model, Tfidf) and "stems" in vars(model)
    for name in STEM_ARRAYS:
        (folder / f"{name}.npy").unlink()
    (folder / _artifact.MANIFEST).unlink()
    _artifact.seal(folder, model.name, 1, model.parameters, model.counts)
    older = load_model(folder)
    assert isinstance(older, Tfidf) and "stems" not in vars(older)
    n_terms = len(model.vocabulary_) - model.n_categories_
    assert {older.stems.get(word) for word in ("sea", "nowher", None)} == {
        model.stems.get(word) for word in ("sea", "nowher", None)
    }
    assert all(np.array_equal(one, other) for one, other in zip(older.stems, model.stems, strict=True))
    assert sorted(model.stems.columns.tolist()) == list(range(n_terms))
