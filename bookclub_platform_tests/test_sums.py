"""models/_sums.py beside a dictionary: the sums, and that one call leaves nothing to the next."""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bookclub_platform.models._sums import SUMS


def is_right(seed: int, n: int) -> bool:
    random = np.random.default_rng(seed)
    books = random.integers(0, n, 500).astype(np.int32)
    values = random.integers(0, 100, 500).astype(np.float32)
    expected: dict[int, float] = defaultdict(float)
    for book, value in zip(books.tolist(), values.tolist(), strict=True):
        expected[book] += value
    found, sums = SUMS.of(books, values, n)
    return len(found) == len(expected) and dict(zip(found.tolist(), sums.tolist(), strict=True)) == expected


def test_threads_with_catalogues_of_all_sizes_get_the_sums_of_their_own() -> None:
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, range(200), [10, 300, 2_000, 50] * 50))


def test_what_fails_leaves_no_sum_behind() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        SUMS.of(np.array([3, 4], np.int32), np.ones(5, np.float32), 10)
    assert SUMS.of(np.array([3], np.int32), np.ones(1, np.float32), 10)[1].tolist() == [1]


def test_of_nothing_there_is_no_sum() -> None:
    books, sums = SUMS.of(np.empty(0, np.int32), np.empty(0, np.float32), 10)
    assert len(books) == len(sums) == 0
