"""Loads that are killed leave whole categories; the long proof is run by hand: killed_loads.py."""

from __future__ import annotations

from pathlib import Path

from bookclub_platform_tests.killed_loads import trial


def test_whatever_is_killed_in_the_middle_of_loads_every_category_is_whole(tmp_path: Path) -> None:
    assert len(trial(tmp_path, rounds=2, size=60, seed=3)) == 2
