"""Numbers of the books -> what a person wants to know of them: quantiles, a histogram, and whether two go together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.report.svg import Box, ticks

Numbers = NDArray[np.float64]
"""(n,) one value per book; NaN where there is none."""

CONFIDENCE_Z = 1.959964  # of 95 %
FEWEST_PAIRS = 10  # with fewer, an interval says nothing
WEAK = 0.1  # a rank correlation below explains under 1 % of the order: of no use, however sure it is


@dataclass(frozen=True, slots=True)
class Summary:
    """Quantiles of the values that are there; `missing` is the number of those that are not."""

    n: int
    missing: int
    low: float
    q1: float
    median: float
    mean: float
    q3: float
    high: float


@dataclass(frozen=True, slots=True)
class Association:
    """Spearman's rank correlation of two columns over the books that have both.

    Attributes:
        rho: -1..1; NaN where there are too few pairs, or one column never varies.
        low, high: the 95 % interval (Fisher's z with the standard error of Bonett and Wright, 2000).
        p: two-sided, of "they have nothing to do with each other".
        verdict: "no signal", "weak", "signal" or "unknown"; `sentence` is the same for people.
    """

    n: int
    rho: float
    low: float
    high: float
    p: float
    verdict: str
    sentence: str


def summary(values: Numbers) -> Summary | None:
    """None where no value is there."""
    there = values[~np.isnan(values)]
    if not len(there):
        return None
    low, q1, median, q3, high = (float(value) for value in np.percentile(there, [0, 25, 50, 75, 100]))
    return Summary(len(there), len(values) - len(there), low, q1, median, float(there.mean()), q3, high)


def histogram(values: Numbers, about: int = 20, least_step: float = 0) -> tuple[list[float], list[int]]:
    """(edges, counts) over the values that are there, in about so many bins with round edges, not narrower than
    `least_step` (1 for things that are counted)."""
    there = values[~np.isnan(values)]
    if not len(there):
        return [0.0, 1.0], [0]
    low, high = float(there.min()), float(there.max())
    steps = ticks(low, high if high > low else low + 1, about)
    step = max(least_step, steps[1] - steps[0] if len(steps) > 1 else 1.0)
    first, last = math.floor(low / step), math.floor(high / step) + 1
    edges = [round(at * step, 10) for at in range(first, last + 1)]
    return edges, [int(count) for count in np.histogram(there, edges)[0]]


def boxes(values: Numbers, groups: Numbers) -> dict[str, Box]:
    """For each group with a value: least, quartiles, most."""
    found = {f"{group:g}": summary(values[groups == group]) for group in np.unique(groups[~np.isnan(groups)])}
    return {name: (box.low, box.q1, box.median, box.q3, box.high) for name, box in found.items() if box}


def association(left: Numbers, right: Numbers, left_name: str, right_name: str) -> Association:
    """Whether the two columns (one entry per book) rise together."""
    both = ~np.isnan(left) & ~np.isnan(right)
    n = int(both.sum())
    names = f"{left_name} and {right_name}"
    if n < FEWEST_PAIRS or not np.ptp(left[both]) or not np.ptp(right[both]):
        why = f"only {n} books have both" if n < FEWEST_PAIRS else "one of them is the same for every book"
        return Association(
            n, math.nan, math.nan, math.nan, math.nan, "unknown", f"Nothing can be said of {names}: {why}."
        )
    from scipy.stats import spearmanr

    found = spearmanr(left[both], right[both])
    rho, p = float(found.statistic), float(found.pvalue)
    error = math.sqrt((1 + rho**2 / 2) / (n - 3))
    centre = math.atanh(max(-0.999999, min(0.999999, rho)))
    low, high = (math.tanh(centre + side * CONFIDENCE_Z * error) for side in (-1, 1))
    verdict = "no signal" if low <= 0 <= high else "weak" if abs(rho) < WEAK else "signal"
    return Association(n, rho, low, high, p, verdict, _sentence(names, verdict, rho, low, high))


def _sentence(names: str, verdict: str, rho: float, low: float, high: float) -> str:
    if verdict == "no signal":
        return (
            f"No signal: {names} have nothing to do with each other as far as these books tell (zero lies inside the "
            f"interval). If they do, the correlation is hardly beyond {max(abs(low), abs(high)):.2f}; a model that "
            f"predicts one from the other would learn noise."
        )
    way = "rise together" if rho > 0 else "go opposite ways"
    if verdict == "weak":
        return (
            f"A trace: {names} {way}, but so weakly (under 1 % of the order is explained) "
            "that no use can be made of it."
        )
    return f"A signal: {names} {way}. It says that they go together, and nothing about which causes which."


def columns(rows: Sequence[Sequence[float | None]], width: int) -> list[Numbers]:
    """Rows of numbers -> one array per column, None as NaN; `width` columns, also where there is no row."""
    table = np.array(rows, dtype=np.float64).reshape(-1, width)
    return [table[:, at] for at in range(width)]


def joined(chunks: Sequence[Sequence[Numbers]], width: int) -> list[Numbers]:
    """The columns of all chunks, one below the other."""
    return [np.concatenate([chunk[at] for chunk in chunks]) if chunks else np.empty(0) for at in range(width)]


def counts(values: Numbers, of: Sequence[int]) -> Mapping[int, int]:
    """How often each of the numbers `of` stands in `values`."""
    return {number: int((values == number).sum()) for number in of}
