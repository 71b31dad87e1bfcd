"""Made-up books -> the API under load, beside bare FastAPI and `mlflow models serve` -> Markdown on stdout.

    python benchmarks/answers.py                                   # 1,000 books, three rounds: some minutes
    python benchmarks/answers.py --books 1000000 --asked 5000 --work /tmp/million   # makes the books once, for all runs

Postgres, MLflow, the API and its peers are separate processes on loopback; the API runs as `python -m serving` with one
worker and without quotas. wrk loads them in turns: each path once after the books have changed (cold), paths at random
(kept), and some paths far more often than others, as readers do (skewed).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import sqlalchemy as sa
from _servers import (
    HERE,
    LISTS,
    UNLIMITED,
    Server,
    filled,
    free_port,
    mlflow_server,
    process,
    publish,
    questions,
    serve,
    wait_for,
)  # fmt: skip
from _wrk import Load, Order, load

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.tables import select_categories
from bookclub_platform.local.postgres import leased
from bookclub_platform.models import Tfidf

INVOCATION = '{"dataframe_split": {"columns": ["book_id"], "data": [[ID]]}}'
COUNTED = ("/stats/overview", "/stats/categories", "/categories")
CHANGED_EVERY_S = 0.5
LEAST_PER_S = 400  # the lowest rate expected when each path is requested once
ORDERS: dict[str, Order] = {"cold": "once", "kept": "random", "skewed": "zipf"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=1000, help="of how many books, drawn at random")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--kinds", nargs="+", metavar="WORD", help="of what is asked only what has such a word")
    parser.add_argument("--work", type=Path, help="a folder that keeps what is made for the next run")
    parser.add_argument("--only-fill", action="store_true", help="make these, and ask nothing")
    parser.add_argument("--registry", help="an MLflow server that runs already, for the models; else one is started")
    parser.add_argument("--no-mlflow-serve", action="store_true", help="leave out that peer, which starts slowly")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        work = options.work or Path(folder)
        url = running.enter_context(leased(work))
        known, model = filled(work, url, options.books)
        ids = random.Random(0).sample(known, min(options.asked, len(known)))
        registry = options.registry or running.enter_context(mlflow_server(work))
        if options.registry or not (work / "published").exists():
            publish(registry, model)
            (work / "published").touch()
        if options.only_fill:
            return
        environment = UNLIMITED | {
            "BOOKCLUB_DATABASE_URL": url, "MLFLOW_TRACKING_URI": registry, "BOOKCLUB_HOME": str(work / "home"),
        }  # fmt: skip
        first_start_s = start_s(environment)
        again_s = start_s(environment)
        api, ours = running.enter_context(serve(environment))
        counted = [first_answer(api, ours, path) for path in COUNTED]
        with sa.create_engine(database_urls(url).books).connect() as connection:
            slugs = [row.category for row in connection.execute(select_categories())]
        asked = questions(ids, slugs)
        chosen = {name: asked[name] for name in asked if any(word in name for word in options.kinds or asked)}
        peer = running.enter_context(bare_fastapi(work, api, [*asked[LISTS], *asked["one book"], "/books"]))
        scored = None if options.no_mlflow_serve else running.enter_context(mlflow_models_serve(model))
        print(f"{len(known)} books, {len(ids)} asked for, {options.rounds} rounds of {options.seconds:g} s, "
              "16 connections, one worker each\n")  # fmt: skip
        compare(Server(url, api, ours, ids[0]), peer, scored, chosen, options.rounds, options.seconds)
        print(
            f"\nStart to ready: {first_start_s:.2f} s with a download of the model, {again_s:.2f} s with its own copy"
        )
        print(f"First answer of a state of the books: {'; '.join(counted)}")
        print(f"Memory of a worker after that load: {own_bytes(ours) / 2**20:.0f} MB that no other could share")


def compare(
    server: Server,
    peer: tuple[str, psutil.Process],
    scored: tuple[str, psutil.Process] | None,
    asked: dict[str, list[str]],
    rounds: int,
    seconds: float,
) -> None:
    """Print the table, and below it what does not fit in. `scored`: the model served by MLflow, only for lists."""
    bare, process = peer
    print("| asked | | errors | bare FastAPI | the API | ratio | ratio by CPU |\n|---|---|---|---|---|---|---|")
    below = []
    for name, paths in asked.items():
        for how, order in ORDERS.items():
            askings = [
                partial(load, process, bare, paths, seconds, order=order),
                partial(server.load, paths, seconds, order),
            ]
            if scored is not None and name == LISTS:
                askings.append(partial(invoked, scored, paths, seconds))
            if how != "cold":  # warm up: with many paths, the rounds alone would request few of them twice
                load(server.process, server.address, paths, math.ceil(len(paths) / LEAST_PER_S), order="once")
            theirs, ours, *rest = in_turns(rounds, *askings)
            row(f"{name} | {how}", theirs, ours)
            below += [beside_mlflow(f"{name}, {how}", ours, one) for one in rest]
            peak = statistics.median(one.per_s for one in ours)
            if how != "skewed":  # right away: the cache is as during the peak
                pause_ms = round(32 / (peak / 2) * 1000)
                half = server.load(paths, seconds, order, 32, pause_ms)
                below.append(told(f"{name}, {how}", half, peak))
            if how == "cold":
                with server.changing(CHANGED_EVERY_S):
                    half = server.load(paths, 10, "random", 32, pause_ms)
                below.append(told(f"{name}, while a price changes each {CHANGED_EVERY_S:g} s", half, peak))
    print("", *below, sep="\n")


def invoked(scored: tuple[str, psutil.Process], paths: list[str], seconds: float) -> Load:
    """Load `mlflow models serve` with the books of `paths`. It caches no responses, so the order does not matter."""
    address, process = scored
    return load(process, address, paths, seconds, body=INVOCATION)


def beside_mlflow(what: str, ours: list[Load], theirs: list[Load]) -> str:
    times = statistics.median(our.per_s / their.per_s for our, their in zip(ours, theirs, strict=True))
    their_per_s = statistics.median(one.per_s for one in theirs)
    errors = sum(one.errors for one in theirs)
    return f"{what}: {times:.1f} times `mlflow models serve`, which tells {their_per_s:.0f}/s, {errors} errors"


def told(what: str, half: Load, peak: float) -> str:
    return (
        f"At half of the peak, {what} ({half.per_s:.0f} of {peak:.0f}/s): "
        f"p50 {half.p50_ms:.1f} ms, p99 {half.p99_ms:.1f} ms, {half.errors} errors"
    )


def first_answer(api: str, server: psutil.Process, path: str) -> str:
    """Time of the first request for `path`, when its counts over all books are computed."""
    started, before = time.perf_counter(), server.cpu_times()
    httpx.get(f"{api}{path}", timeout=60).raise_for_status()
    took_s, after = time.perf_counter() - started, server.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    return f"{path} {1000 * took_s:.0f} ms, {1000 * cpu_s:.0f} ms of the worker's CPU"


def start_s(environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with serve(environment):
        return time.perf_counter() - started


@contextmanager
def bare_fastapi(folder: Path, api: str, paths: list[str]) -> Iterator[tuple[str, psutil.Process]]:
    """The peer, serving the bytes that the API returns for each of `paths`."""
    port, answers = free_port(), folder / "answers.json"
    # The same requests as wrk's, so that the API has each response in memory: a cold cache is measured separately.
    with httpx.Client(base_url=api, timeout=30, headers={"Accept-Encoding": "identity"}) as client:
        answers.write_text(json.dumps({path: client.get(path).raise_for_status().text for path in paths}))
    command = [sys.executable, "-m", "uvicorn", "_bare:app", "--app-dir", str(HERE), "--port", str(port)]
    command += ["--no-access-log", "--log-level", "warning", "--loop", "uvloop", "--http", "httptools"]
    with process(command, {"BENCH_ANSWERS": str(answers)}, folder / "bare.log") as started:
        wait_for(f"http://127.0.0.1:{port}/books")
        yield f"http://127.0.0.1:{port}", started


@contextmanager
def mlflow_models_serve(model: Tfidf) -> Iterator[tuple[str, psutil.Process]]:
    import mlflow

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save(folder / "tfidf")
        saved, port = folder / "pyfunc", free_port()
        mlflow.pyfunc.save_model(
            str(saved), python_model=str(HERE / "_mlflow_model.py"), artifacts={"tfidf": str(folder / "tfidf")},
            pip_requirements=[],
        )  # fmt: skip
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(saved), "--env-manager", "local"]
        with process([*command, "--port", str(port)], {}, folder / "models_serve.log") as started:
            wait_for(f"http://127.0.0.1:{port}/ping")
            yield f"http://127.0.0.1:{port}", started


def own_bytes(server: psutil.Process) -> int:
    """Memory without file mappings, which several workers share. Where the system does not report that, the unique set
    size, which includes them while there is one worker."""
    held = server.memory_info()
    return int(held.rss - held.shared) if hasattr(held, "shared") else int(server.memory_full_info().uss)


def in_turns(rounds: int, *askings: Callable[[], Load]) -> list[list[Load]]:
    """Run each of `askings` once per round, with the order reversed every other round, after a warm-up round."""
    for ask in askings:
        ask()
    found: dict[int, list[Load]] = {at: [] for at in range(len(askings))}
    for number in range(rounds):
        for at in sorted(found, reverse=number % 2 == 1):
            found[at].append(askings[at]())
    return list(found.values())


def row(name: str, theirs: list[Load], ours: list[Load]) -> None:
    def middle(loads: list[Load], field: str) -> Any:
        return statistics.median(getattr(one, field) for one in loads)

    ratios = [statistics.median([our.per_s / their.per_s for our, their in zip(ours, theirs, strict=True)])]
    ratios += [statistics.median([our.per_cpu_s / their.per_cpu_s for our, their in zip(ours, theirs, strict=True)])]
    cells = [f"{middle(loads, 'per_s'):.0f}/s, p99 {middle(loads, 'p99_ms'):.1f} ms" for loads in (theirs, ours)]
    errors = sum(one.errors for one in [*theirs, *ours])
    print(f"| {name} | {errors} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
