"""Stems -> their columns in a model, as plain arrays, memory-mapped from files; a lookup reads only a few pages.

    stems = Stems.of({"hous": 3, "storm": 7})
    stems.get("storm")        ->  7; None for a stem without a column

A million books have some 700,000 stems. To stem them takes seven seconds, and a dict of them takes 100 MB per process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

STEM_ARRAYS: dict[str, type[np.generic]] = {"stems.text": np.uint8, "stems.ends": np.int64, "stems.columns": np.int32}
"""The arrays of Stems, as they are saved, and their types."""


class Stems(NamedTuple):
    """k stems in UTF-8, sorted by their bytes: stem i is `text[ends[i]:ends[i + 1]]`, with the column `columns[i]`."""

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]
    columns: NDArray[np.int32]

    @classmethod
    def of(cls, column_of: Mapping[str, int]) -> Self:
        pairs = sorted((stem.encode(), column) for stem, column in column_of.items())
        text = np.frombuffer(b"".join(stem for stem, _ in pairs), dtype=np.uint8)
        ends = np.cumsum([0, *(len(stem) for stem, _ in pairs)], dtype=np.int64)
        return cls(text, ends, np.array([column for _, column in pairs], dtype=np.int32))

    def get(self, stem: str | None) -> int | None:
        if stem is None:
            return None
        sought = stem.encode(errors="replace")
        at = bisect_left(range(len(self.columns)), sought, key=self._bytes)
        return int(self.columns[at]) if at < len(self.columns) and self._bytes(at) == sought else None

    def _bytes(self, at: int) -> bytes:
        return self.text[self.ends[at] : self.ends[at + 1]].tobytes()

    def fault(self, n_terms: int) -> str | None:
        """Why these arrays do not fit a model with `n_terms` terms, or None."""
        if len(self.ends) != len(self.columns) + 1:
            return f"{len(self.ends)} bounds of {len(self.columns)} stems"
        if self.ends[0] != 0 or self.ends[-1] != len(self.text) or np.any(np.diff(self.ends) < 0):
            return "bounds of stems that do not ascend"
        if len(self.columns) and not 0 <= self.columns.min() <= self.columns.max() < n_terms:
            return "stems of terms that there are not"
        return None
