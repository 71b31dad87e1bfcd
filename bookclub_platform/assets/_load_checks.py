"""The result of a category's load -> faults in it: the checks of `books`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg

from bookclub_platform.assets._checks import Check, Findings
from bookclub_platform.core.drift import (
    FEW_BOOKS,
    FEW_BOOKS_FACTOR,
    LARGE_SHIFT,
    MANY_BOOKS_FACTOR,
    ONE_BOOK_FACTOR,
    Drift,
)
from bookclub_platform.core.loads import LEAST_SHARE

COUNT = Check(
    "count_did_not_collapse",
    f"The crawl found at least {LEAST_SHARE:.0%} of the category's books. One that did not is not believed: nothing of "
    "it is loaded and nothing delisted. To believe it, materialise the partition of `books` with least_share: 0.",
    is_blocking=True,
)
PRICE_DRIFT = Check(
    "price_drift",
    f"Against the load before, for the same books: the median price moved by less than a factor of "
    f"{MANY_BOOKS_FACTOR} ({FEW_BOOKS_FACTOR:.0f} where fewer than {FEW_BOOKS} are compared), no price by a factor of "
    f"{ONE_BOOK_FACTOR:.0f}, and half of them kept their currency.",
    severity=dg.AssetCheckSeverity.WARN,
)
RATING_DRIFT = Check(
    "rating_drift",
    f"Against the load before, for the same books: the population stability index of the stars is at most "
    f"{LARGE_SHIFT} (more where few books are compared), and no more than half of them lost their stars.",
    severity=dg.AssetCheckSeverity.WARN,
)
LOAD_CHECKS = [COUNT, PRICE_DRIFT, RATING_DRIFT]


@dataclass(frozen=True, slots=True)
class Load:
    """The load of one source: the crawl `found` this many books, the table had `listed`, and `rows` were loaded (none
    if the crawl was not trusted)."""

    rows: int
    figures: Mapping[str, Any]
    drift: Drift = field(default_factory=Drift)
    listed: int = 0
    found: int = 0
    is_shrunken: bool = False


def check_loads(findings: Findings, key: str, loads: Mapping[str, Load | None]) -> None:
    """Record what LOAD_CHECKS find in a category, over all sources that delivered something."""
    brought = {name: load for name, load in loads.items() if load}
    collapsed = [
        f"{name} has {load.found} of {load.listed} books" for name, load in brought.items() if load.is_shrunken
    ]
    if brought:
        fault = f"not loaded: {', '.join(collapsed)}" if collapsed else None
        findings.note(COUNT, key, fault, found={name: load.found for name, load in brought.items()})
    for check, fault_of in ((PRICE_DRIFT, Drift.price_fault), (RATING_DRIFT, Drift.rating_fault)):
        faults = [f"{name}: {fault}" for name, load in brought.items() if (fault := fault_of(load.drift))]
        if brought:
            figures = {name: asdict(load.drift) for name, load in brought.items()}
            findings.note(check, key, "; ".join(faults) or None, drift=figures)
