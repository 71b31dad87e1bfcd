"""Champion and challenger, judged on the same queries -> promote or keep, with every number that the decision rests on.

    decision = decide(challenger, champion)      # each a Judgement; champion None: the first model
    decision.is_promoted, decision.reason, decision.figures

Most challengers are no better than the champion, and of those half look better by chance. One is promoted only if the
lower bound of its gain, by a paired bootstrap over the queries, is above zero, if the gain is worth a change, and if no
guardrail breaks. A tie, a figure that is missing or not a number, or other queries keep the champion.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# From benchmarks/gate.py: twins differ too, and surely, for a model is no sample. Fitted on other 97 % of the real
# shop's books they do by up to 0.011 either way, and 0 of 200 were promoted; "lower bound above zero" alone promoted
# 15 to 22 % of those without other 3 % of the terms.
MIN_GAIN = 0.015
CONFIDENCE = 0.975  # one-sided
RESAMPLES = 2_000
_AT_ONCE = 100  # resamples: a table of all of them would take gigabytes for 20,000 queries


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one model did on one snapshot.

    Attributes:
        queries: (q,) ids of the judged books.
        scores: (q, p), of each measure 0..1, higher is better; NaN where a measure says nothing of a book.
        faults: the guardrails that the model breaks, in words.
        names: (p,) of the measures.
        judges: who judged, in words.
    """

    queries: NDArray[np.int64]
    scores: NDArray[np.float64]
    faults: Sequence[str] = ()
    names: Sequence[str] = ()
    judges: str = ""

    @property
    def figures(self) -> dict[str, float]:
        """The mean of each measure by its name, without those that say nothing."""
        means = zip(self.names, self.means.tolist(), strict=True) if self.names else ()
        return {name: mean for name, mean in means if mean == mean}

    @property
    def means(self) -> NDArray[np.float64]:
        """(p,) the mean of each measure; NaN for one that says nothing of any book."""
        means: NDArray[np.float64] = _means(self.scores, np.ones((1, len(self.scores))))[0]
        return means

    @property
    def score(self) -> float:
        """The geometric mean of the measures that say anything; NaN if none does."""
        return float(_score(self.means[None])[0])


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is a sentence; `figures` are the gain, its bounds and both scores, by the names of MLflow metrics."""

    is_promoted: bool
    reason: str
    figures: dict[str, float]


def decide(challenger: Judgement, champion: Judgement | None, min_gain: float = MIN_GAIN) -> Decision:
    """Whether `challenger` becomes the champion.

    Args:
        min_gain: of the mean score, below which a change is not worth its risk.
    """
    figures = {"challenger_score": challenger.score, "queries": float(len(challenger.queries))}
    if challenger.faults:
        return Decision(False, f"It breaks a guardrail: {'; '.join(challenger.faults)}.", figures)
    if champion is None:
        return Decision(True, "It is the first model, and breaks no guardrail.", figures)
    figures["champion_score"] = champion.score
    if not np.array_equal(challenger.queries, champion.queries) or not len(challenger.queries):
        return Decision(False, "The two were not judged on the same queries: keep the champion.", figures)
    is_silent = np.isnan(challenger.scores)
    if not np.array_equal(is_silent, np.isnan(champion.scores)) or is_silent.all():
        return Decision(False, "A score is missing: keep the champion.", figures)
    gain = challenger.score - champion.score
    lower, upper = _bounds(challenger.scores, champion.scores)
    figures |= {"gain": gain, "gain_lower_bound": lower, "gain_upper_bound": upper, "min_gain": min_gain}
    sure = f"at least {lower:+.4f} with {CONFIDENCE:.1%} confidence"
    text = f"gain {gain:+.4f}, {sure}, over {len(challenger.queries)} queries"
    text += f" judged by {challenger.judges}" if challenger.judges else ""
    if lower > 0 and gain >= min_gain:
        return Decision(True, f"It is better: {text}.", figures)
    return Decision(False, f"It is not clearly better: {text}; wanted are a bound above 0 and {min_gain}.", figures)


def _bounds(challenger: NDArray[np.float64], champion: NDArray[np.float64]) -> tuple[float, float]:
    """The gain's bounds, by a bootstrap over the queries; the same scores give the same bounds."""
    random, count = np.random.default_rng(0), len(challenger)
    gains = []
    for _ in range(RESAMPLES // _AT_ONCE):
        weights = random.multinomial(count, np.full(count, 1 / count), size=_AT_ONCE).astype(float)
        gains.append(_score(_means(challenger, weights)) - _score(_means(champion, weights)))
    lower, upper = np.nanquantile(np.concatenate(gains), [1 - CONFIDENCE, CONFIDENCE])
    return float(lower), float(upper)


def _means(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, p): the means of each measure under each of (r, q) weights of the queries."""
    has_score = ~np.isnan(scores)
    total = weights @ has_score
    sums = weights @ np.where(has_score, scores, 0)
    return np.asarray(np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0))


def _score(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r,): the geometric mean of the measures that say anything. A model that fails at one is worth nothing."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all silent: NaN, which keeps the champion
        return np.asarray(np.exp(np.nanmean(np.log(means), axis=1)))
