"""Faults that one part of the operation must not pass on to others: each seen on the real parts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bookclub_platform import sandbox
from bookclub_platform_tests.test_build import BOOKCLUB, build, environment


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
