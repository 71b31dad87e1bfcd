"""Champion and challenger, judged on the same queries -> promote or keep, with every number behind the decision.

    decision = decide(challenger, champion)      # each a Judgement; champion None: the first model
    decision.is_promoted, decision.reason, decision.figures

Most challengers are no better than the champion, and half of those look better by chance. A challenger is promoted only
if the lower bound of its gain, by a paired bootstrap over the queries, is above zero, if the gain is large enough to
justify a change, and if it breaks no guardrail. The champion stays on a tie, if a figure is missing or NaN, or if the
two were judged on different queries.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# From benchmarks/gate.py: even equivalent models differ, and significantly, since the bootstrap resamples queries and
# not models. Pairs fitted on different random 97 % of the real shop's books differ by up to 0.011 either way, and 0 of
# 200 were promoted. "Lower bound above zero" alone promoted 15 to 22 % of the pairs that each lacked a different random
# 3 % of the terms.
MIN_GAIN = 0.015
CONFIDENCE = 0.975  # one-sided
RESAMPLES = 2_000
_AT_ONCE = 100  # resamples per batch: a table of all of them would take gigabytes for 20,000 queries


@dataclass(frozen=True, slots=True)
class Judgement:
    """The results of one model on one snapshot.

    Attributes:
        queries: (q,) ids of the judged books.
        scores: (q, p), each measure 0..1, higher is better; NaN where a measure does not apply to a book.
        faults: the guardrails that the model breaks, in words.
        names: (p,) names of the measures.
        judges: who judged, in words.
    """

    queries: NDArray[np.int64]
    scores: NDArray[np.float64]
    faults: Sequence[str] = ()
    names: Sequence[str] = ()
    judges: str = ""

    @property
    def figures(self) -> dict[str, float]:
        """Measure name -> mean, without the measures that apply to no book."""
        means = zip(self.names, self.means.tolist(), strict=True) if self.names else ()
        return {name: mean for name, mean in means if mean == mean}

    @property
    def means(self) -> NDArray[np.float64]:
        """(p,) the mean of each measure; NaN for one that applies to no book."""
        means: NDArray[np.float64] = _means(self.scores, np.ones((1, len(self.scores))))[0]
        return means

    @property
    def score(self) -> float:
        """The geometric mean of the measures that are not NaN; NaN if all are."""
        return float(_score(self.means[None])[0])


@dataclass(frozen=True, slots=True)
class Decision:
    """`reason` is a sentence; `figures` holds the gain, its bounds and both scores, by MLflow metric name."""

    is_promoted: bool
    reason: str
    figures: dict[str, float]


def decide(challenger: Judgement, champion: Judgement | None, min_gain: float = MIN_GAIN) -> Decision:
    """Decide whether `challenger` becomes the champion.

    Args:
        min_gain: the gain in score below which a change is not worth its risk.
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
    """The bounds of the gain, by a bootstrap over the queries; deterministic for the same scores."""
    random, count = np.random.default_rng(0), len(challenger)
    gains = []
    for _ in range(RESAMPLES // _AT_ONCE):
        weights = random.multinomial(count, np.full(count, 1 / count), size=_AT_ONCE).astype(float)
        gains.append(_score(_means(challenger, weights)) - _score(_means(champion, weights)))
    lower, upper = np.nanquantile(np.concatenate(gains), [1 - CONFIDENCE, CONFIDENCE])
    return float(lower), float(upper)


def _means(scores: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r, p): the mean of each measure under each of the r query weightings `weights` (r, q)."""
    has_score = ~np.isnan(scores)
    total = weights @ has_score
    sums = weights @ np.where(has_score, scores, 0)
    return np.asarray(np.divide(sums, total, out=np.full(total.shape, np.nan), where=total > 0))


def _score(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """(r,): the geometric mean of the measures that are not NaN. A model that scores 0 on one measure scores 0."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no measure at all: NaN, which keeps the champion
        return np.asarray(np.exp(np.nanmean(np.log(means), axis=1)))
