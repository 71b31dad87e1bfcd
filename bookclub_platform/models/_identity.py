"""Rows of text -> numbers that identify works and versions of a text, equal for equal books. Needs only NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.stock import fingerprint, text_fingerprint
from bookclub_platform.models import _text
from bookclub_platform.models._contract import BookText


def works_of(titles: Sequence[str]) -> NDArray[np.int32]:
    """(n,): for each book, the place of the first book with the same title."""
    first: dict[str, int] = {}
    return np.array([first.setdefault(_text.work_key(title), at) for at, title in enumerate(titles)], dtype=np.int32)


def prints_of(rows: Sequence[BookText]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) fingerprints of the texts, and of the titles as works."""
    texts = [text_fingerprint(row.title, row.description, row.category, row.category_name) for row in rows]
    titles = [fingerprint(_text.work_key(row.title)) for row in rows]
    return np.array(texts, dtype=np.int64), np.array(titles, dtype=np.int64)
