"""Faults that one part of the operation must not pass on to others: each seen on the real parts."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from bookclub_platform import sandbox
from bookclub_platform.assets.tfidf_model import CHALLENGER, CHAMPION, _judged
from bookclub_platform.models import Judge, Tfidf, _embedding
from bookclub_platform_tests.test_build import BOOKCLUB, build, environment
from bookclub_platform_tests.test_tfidf import shelf


def bookclub(home: Path, shop_url: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOOKCLUB, *words], env=environment(home, shop_url, **more), capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home that was built once, and the address of its shop, which is gone by now."""
    home = tmp_path_factory.mktemp("home")
    with sandbox.running(books=40, seed=5) as url:
        build(home, url)
    return home, url


def test_a_damaged_file_holds_back_its_own_category_alone(built: tuple[Path, str]) -> None:
    home, url = built
    spoilt, sound = sorted((home / "raw" / "books_toscrape").iterdir())[:2]
    (file,) = spoilt.glob("*.warc.gz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    before = (home / "cleaned" / "books_toscrape" / f"{spoilt.name}.jsonl").read_bytes()
    try:
        assert bookclub(home, url, "clean", sound.name).returncode == 0
        everything = bookclub(home, url, "clean")
        assert everything.returncode == 0 and f"{spoilt.name}: {file}: is damaged" in everything.stderr
        alone = bookclub(home, url, "clean", spoilt.name)
        assert alone.returncode == 1 and "is damaged" in alone.stderr and "Traceback" not in alone.stderr
    finally:
        file.write_bytes(whole)
    assert (home / "cleaned" / "books_toscrape" / f"{spoilt.name}.jsonl").read_bytes() == before


def test_a_champion_that_needs_an_extra_that_is_gone_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(_embedding, "distribution", absent)
    new, old = Tfidf().fit(shelf()), Tfidf().fit(shelf())
    old.embedding, old.embedding_components_ = "minilm", None  # as one that was trained with the extra
    assert old.embedding_ is not None
    old.embedding_mean_ = np.zeros(old.embedding_.shape[1], dtype=np.float32)
    with pytest.raises(dg.Failure, match=r"\[embedding\].*bookclub model promote") as told:
        _judged(Judge(shelf(), []), {CHALLENGER: new, CHAMPION: old}, shelf())
    assert "BOOKCLUB_EMBEDDING" not in str(told.value.description)
