"""What books share with one, and how near they are -> the reasons that are shown. Needs only NumPy.

told_reasons(scores, senses, index.shared(7, others, REASONS), names, first_category)    ->  the reasons of each
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import Reason
from bookclub_platform.models._index import Shared

REASONS = 5


def told_reasons(
    scores: NDArray[np.floating],
    senses: NDArray[np.floating],
    shared: Shared,
    names: Sequence[str],
    first_category: int,
) -> list[list[Reason]]:
    """For each of k books, the largest shares one by one, then the rest as one; together they add up to its score.

    Args:
        scores: (k,).
        senses: (k,) what the embedding adds to them.
        names: the names of the columns; from `first_category` on they are categories.
    """
    of_words = scores - senses
    shown = np.diff(shared.bounds)
    shares = shared.products * np.repeat(of_words / np.where(shared.counts > 0, shared.totals, 1), shown)
    shown_sums = np.bincount(np.repeat(np.arange(len(shown)), shown), weights=shares, minlength=len(shown))
    rests = np.maximum(of_words - shown_sums, 0)
    named = [
        Reason("category" if column >= first_category else "term", names[column], share)
        for column, share in zip(shared.columns.tolist(), shares.tolist(), strict=True)
    ]
    further = (shared.counts - shown).tolist()
    return [
        _of_one(named[start:end], sense, count, rest)
        for (start, end), sense, count, rest in zip(
            pairwise(shared.bounds.tolist()), senses.tolist(), further, rests.tolist(), strict=True
        )
    ]


def _of_one(reasons: list[Reason], sense: float, further: int, rest: float) -> list[Reason]:
    if sense > 0:
        reasons.append(Reason("embedding", "similar subjects", sense))
        reasons.sort(key=lambda reason: -reason.share)
    if further:
        reasons.append(Reason("terms", f"{further} more", rest))
    return reasons
