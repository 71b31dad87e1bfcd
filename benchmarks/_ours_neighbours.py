"""A number of made-up books -> fit, lists, evaluate, publish, load and requests by the platform -> one line of JSON on
stdout, and the model's files in a folder. neighbours.py starts it once per size, in its own process to measure peak
memory.

    python benchmarks/_ours_neighbours.py requests FOLDER          # only the requests, for a saved model
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _figures import peak_mb
from _texts import made_up

from bookclub_platform.models import BookText, Judge, Registry, Tfidf, decide, list_health
from bookclub_platform.models._nearest import nearest_lists

REQUESTS = 2_000
SHARES = (0.001, 0.02, 0.1, 0.3, 0.6)


def main(books: int, folder: Path) -> None:
    rows = list(made_up(books))
    figures: dict[str, Any] = {"books": books, "texts_mb": peak_mb()}
    started = time.perf_counter()
    model = Tfidf(embedding="none").fit(rows)
    figures["fit_s"] = time.perf_counter() - started - model.figures_.get("neighbour_seconds", 0)
    figures["entries"] = model.counts["entries"]
    if not model.figures_:  # with so few books the platform makes lists in another way
        nearest_lists(model.index_, model.works_)  # warm-up: compiles it
        model.lists_, made = nearest_lists(model.index_, model.works_)
        model.figures_ = {"neighbour_seconds": made.seconds, "neighbour_recall_at_10": made.recall_at_10}
    figures |= model.figures_ | {"fit_peak_mb": peak_mb()}
    figures["evaluate_s"] = seconds(partial(evaluate, rows, model))
    figures["evaluate_peak_mb"] = peak_mb()
    del rows
    figures["publish_s"] = publish_s(model, folder)
    figures["save_s"] = seconds(lambda: model.save(folder))
    figures["mb_on_disk"] = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    started = time.perf_counter()
    loaded = Tfidf.load(folder)
    figures["load_s"] = time.perf_counter() - started
    print(json.dumps(figures | requests(loaded)), flush=True)


def evaluate(rows: list[BookText], model: Tfidf) -> None:
    """Evaluate one model, as the asset `tfidf_model` does with champion and challenger."""
    judge, faults = Judge(rows), list_health(model, rows).faults()
    decide(judge.judge(model, faults), None)


def publish_s(model: Tfidf, folder: Path) -> float:
    """Time to publish to MLflow's file store without its server. The first access creates tables and is not counted."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as store:
        registry = Registry(f"sqlite:///{store}/mlflow.db")
        registry.versions(model.name)

        def publish() -> None:
            version = registry.publish(model, model.parameters, {}, {}, artifact_root=f"{store}/artifacts")
            registry.promote(version, "the first")

        return seconds(publish)


def requests(model: Tfidf) -> dict[str, Any]:
    random = np.random.default_rng(5)
    asked = random.choice(model.book_ids, REQUESTS).tolist()
    figures: dict[str, Any] = spread("request", [timed(lambda at=at: model.recommend(at, 10)) for at in asked])
    for share in SHARES:
        is_allowed = random.random(len(model.book_ids)) < share
        calls = [timed(lambda at=at, among=is_allowed: model.recommend(at, 10, among)) for at in asked[:500]]
        figures |= spread(f"filter_{share}", calls)
        figures[f"filter_{share}_recall"] = np.mean([filtered_recall(model, at, is_allowed) for at in asked[:100]])
    return figures


def filtered_recall(model: Tfidf, book_id: int, is_allowed: np.ndarray) -> float:
    at = int(np.searchsorted(model.book_ids, book_id))
    exact = model.index_.cosines(at)
    exact[~is_allowed | (model.works_ == model.works_[at])] = 0
    least = np.partition(exact, -10)[-10]
    wanted = min(10, np.count_nonzero(exact))
    found = [near.score for near in model.recommend(book_id, 10, is_allowed)]
    return 1.0 if not wanted else min(sum(score >= least - 1e-6 for score in found), wanted) / wanted


def spread(name: str, calls: list[tuple[float, float]]) -> dict[str, float]:
    return {
        f"{name}_p{percent}_{clock}ms": float(np.percentile(values, percent)) * 1000
        for clock, values in zip(("", "cpu_"), zip(*calls, strict=True), strict=True)
        for percent in (50, 99)
    }


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock seconds, and CPU seconds of this thread: on a busy machine the former include other processes."""
    started, own = time.perf_counter(), time.thread_time()
    call()
    return time.perf_counter() - started, time.thread_time() - own


def seconds(call: Callable[[], object]) -> float:
    return timed(call)[0]


if __name__ == "__main__":
    if sys.argv[1] == "requests":
        print(json.dumps(requests(Tfidf.load(Path(sys.argv[2])))))
    else:
        main(int(sys.argv[1]), Path(sys.argv[2]))
