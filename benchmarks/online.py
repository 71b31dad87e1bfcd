"""Requests for recommendations, in-process, without HTTP and Postgres: how long each kind takes, by catalogue size.

    python benchmarks/online.py 1000 100000

`came` is the time to fold in books that were loaded since the fit: first all of them, then one more.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from _texts import made_up

from bookclub_platform.core.browse import Filters
from bookclub_platform.core.stock import Stock, fingerprint
from bookclub_platform.models import Grown, Tfidf
from serving.recommender.lineup import IN_STOCK, Lineup

REQUESTS = 300
CAME = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sizes", type=int, nargs="*", default=[1_000, 100_000], metavar="BOOKS")
    sizes: list[int] = parser.parse_args().sizes
    print(f"{'books':>8} {'request':<28} {'p50 ms':>8} {'p99 ms':>8}")
    for size in sizes:
        for name, times in measure(size).items():
            print(f"{size:>8} {name:<28} {np.percentile(times, 50):>8.2f} {np.percentile(times, 99):>8.2f}")


def measure(size: int) -> dict[str, list[float]]:
    """Kind of request -> milliseconds of each."""
    rows = list(made_up(size + CAME + 1))
    model = Tfidf().fit(rows[:size])
    times: dict[str, list[float]] = {}
    grown = Grown(model)
    grown.grow(rows[:1])  # the first call stems the vocabulary
    times[f"came: {CAME} books"] = [timed(lambda: grown.grow(rows[size:-1]))]
    grown = grown.grow(rows[size:-1])
    times["came: one more"] = [timed(lambda: grown.grow(rows[-1:])) for _ in range(20)]
    random = np.random.default_rng(0)
    n = size + CAME
    shelves = np.array([fingerprint(row.category) for row in rows[:n]], dtype=np.int64)
    stock = Stock(
        np.arange(1, n + 1),
        shelves,
        np.round(random.uniform(5, 60, n), 2),
        np.zeros(n, dtype=np.int32),
        random.integers(0, 6, n).astype(np.int8),
        random.random(n) < 0.8,
        np.zeros(n, dtype=np.int64),
        np.zeros(n, dtype=np.uint32),
        np.zeros(n, dtype=np.int32),
        shelves,
    )
    lineup = Lineup(grown, stock)
    lineup.allowed(IN_STOCK)
    asked = random.integers(1, n + 1, REQUESTS).tolist()
    narrow = IN_STOCK._replace(category=rows[0].category, min_rating=3)
    wide = IN_STOCK._replace(min_price=Decimal(10), max_price=Decimal(40))

    def ask(book_ids: list[int], filters: Filters, **others: Any) -> float:
        return timed(lambda: grown.nearest(grown.probe(book_ids), 10, lineup.allowed(filters), **others))

    scores, likeness, others = np.full(10, 0.3), np.full(10, 0.1), np.arange(10)
    shared = [model.index_.shared(at % size, others, 5) for at in asked]
    times["reasons of a list"] = [timed(lambda of=of: model.reasons(scores, likeness, of)) for of in shared]
    times["plain"] = [ask([book], IN_STOCK) for book in asked]
    times["filtered: shelf and stars"] = [ask([book], narrow) for book in asked]
    times["filtered: price"] = [ask([book], wide) for book in asked]
    times["filtered: a price of its own"] = [
        ask([book], IN_STOCK._replace(min_price=Decimal(at) / 100)) for at, book in enumerate(asked)
    ]
    times["diversity 0.5"] = [ask([book], IN_STOCK, diversity=0.5) for book in asked]
    times["five liked"] = [ask(asked[at : at + 5], IN_STOCK) for at in range(REQUESTS - 5)]
    may = lineup.allowed(IN_STOCK)
    times["text"] = [
        timed(lambda: grown.nearest(grown.probe_of_text(rows[book - 1].description or ""), 10, may))  # noqa: B023
        for book in asked
    ]
    return times


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main()
