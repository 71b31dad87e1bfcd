"""local/home.py: a home holds one shop at a time, and one `bookclub up`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bookclub_platform.core.errors import AlreadyRunning
from bookclub_platform.local.home import held_by_us, is_built, mark_built, settle
from bookclub_platform.local.postgres import leased

FIRST, SECOND = "sandbox", "http://127.0.0.1:8900"


def test_another_shop_gets_a_home_of_its_own_and_the_first_comes_back(tmp_path: Path) -> None:
    assert settle(tmp_path, FIRST) is None
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "page").write_text("of the first")
    mark_built(tmp_path)
    assert "put aside" in (settle(tmp_path, SECOND) or "")
    assert not (tmp_path / "raw").exists()
    assert not is_built(tmp_path)
    assert "put aside" in (settle(tmp_path, FIRST) or "")
    assert (tmp_path / "raw" / "page").read_text() == "of the first"
    assert is_built(tmp_path)
    assert settle(tmp_path, FIRST) is None


def test_a_home_in_use_is_not_taken_for_another_shop(tmp_path: Path) -> None:
    settle(tmp_path, FIRST)
    with leased(tmp_path), pytest.raises(AlreadyRunning, match="sandbox"):
        settle(tmp_path, SECOND)


def test_a_home_is_held_once(tmp_path: Path) -> None:
    with held_by_us(tmp_path), pytest.raises(AlreadyRunning, match="already runs"), held_by_us(tmp_path):
        raise AssertionError("held twice")
    with held_by_us(tmp_path):
        assert (tmp_path / "up.lock").read_text().isdigit()
