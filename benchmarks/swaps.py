"""Two models -> hundreds of swaps and rollbacks under load, then Postgres killed under load -> what readers saw.

    python benchmarks/swaps.py                              # 200 swaps: some minutes
    python benchmarks/swaps.py --swaps 6 --seconds 2        # as the tests run it

wrk asks the API for lists at about `--per-second`, quiet first and then while the champion changes to and fro; readers
of our own check each answer against the models meanwhile. Ends with 1 if an answer failed or was of two models.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import psutil
from _wrk import Load, load

from bookclub_platform.local.postgres import leased
from bookclub_platform.models import ModelVersion, Registry, Tfidf
from serving import UNLIMITED, fill, mlflow_server, publish, serve

CONNECTIONS = 16
READERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=200, help="how many of the books are asked for")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20, help="of the quiet time, and of that without Postgres")
    parser.add_argument("--per-second", type=int, default=300)
    parser.add_argument("--registry", help="an MLflow server that runs already, for the models; else one is started")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        work = Path(folder)
        url = running.enter_context(leased(work))
        ids, model = fill(url, options.books)
        address = options.registry or running.enter_context(mlflow_server(work))
        registry = Registry(address)
        publish(address, model)
        first = registry.champion(model.name)
        other = Tfidf(category_weight=0.0, title_weight=5).fit(rows_of(url))
        second = registry.publish(other, other.parameters, {}, {}, artifact_root=None)
        models = {first.version: model, second.version: other}
        home = work / "home"
        environment = UNLIMITED | {"BOOKCLUB_DATABASE_URL": url, "MLFLOW_TRACKING_URI": address}
        environment |= {"BOOKCLUB_HOME": str(home), "BOOKCLUB_MODEL_POLL_S": "0.1"}
        api, process = running.enter_context(serve(environment))
        asked = ids[:: max(1, len(ids) // options.asked)]
        paths = [f"/books/{book_id}/recommendations" for book_id in asked]
        pause_ms = round(CONNECTIONS / options.per_second * 1000)

        def loaded(seconds: float) -> Load:
            return load(process, api, paths, seconds, CONNECTIONS, pause_ms)

        for version in (second, first):  # each list of both models once: what is kept is full, memory at its height
            swap(registry, api, version)
            with httpx.Client(base_url=api, timeout=20, headers={"Accept-Encoding": "identity"}) as client:
                for path in paths:
                    client.get(path)
        quiet = loaded(options.seconds)
        report = Report()
        with reading(api, asked, models, report), ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            memory = [process.memory_info().rss]
            swapping = pool.submit(swap_all, registry, api, [second, first], options.swaps, process, memory)
            busy = [loaded(max(2, options.seconds // 4))]
            while not swapping.done():
                busy.append(loaded(max(2, options.seconds // 4)))
            swapping.result()
            took_s = time.monotonic() - begun
        p99 = statistics.median(one.p99_ms for one in busy)
        errors = sum(one.errors for one in busy)
        print(f"{options.swaps} swaps and rollbacks in {took_s:.0f} s, {quiet.per_s:.0f} lists/s quiet, "
              f"{statistics.mean(one.per_s for one in busy):.0f} lists/s meanwhile")  # fmt: skip
        print(
            f"failed: {errors + report.failed}; mixed or wrong: {report.wrong} of {sum(report.read.values())} checked"
        )
        print(f"p99 {quiet.p99_ms:.1f} ms quiet, {p99:.1f} ms meanwhile: {p99 / quiet.p99_ms:.2f} times")
        print("memory, MB: " + ", ".join(f"{rss / 2**20:.0f}" for rss in memory))
        seen = without_postgres(work, api, paths, asked)
        print("Postgres killed under load, lists: " + told(seen["known"]))
        print(
            "the same, what needs it (GET /books): "
            + told(seen["books"])
            + f"; slowest {seen['slowest'] * 1000:.0f} ms"
        )
        bad = {status for kind in ("known", "books") for status in seen[kind]} - {200, 503}
        sys.exit(bool(errors or report.failed or report.wrong or bad))


def rows_of(url: str) -> list:  # type: ignore[type-arg]
    import sqlalchemy as sa

    from bookclub_platform.core.database import database_urls
    from bookclub_platform.core.tables import select_training_rows
    from bookclub_platform.models import BookText

    with sa.create_engine(database_urls(url).books).connect() as connection:
        return [BookText(*row) for row in connection.execute(select_training_rows())]


class Report:
    """What the checking readers saw; `read` counts by version."""

    def __init__(self) -> None:
        self.failed = self.wrong = 0
        self.read: Counter[str] = Counter()


@contextmanager
def reading(api: str, ids: list[int], models: dict[str, Tfidf], report: Report) -> Iterator[None]:
    """Readers that check every answer, until the block ends."""
    expected = {
        (version, book_id): [found.book_id for found in model.recommend(book_id, 10)]
        for version, model in models.items()
        for book_id in ids
    }
    ended = threading.Event()

    def read(start: int) -> None:
        with httpx.Client(base_url=api, timeout=20) as client:
            for at in range(start, 10**9, READERS):
                if ended.wait(0.02):
                    return
                book_id = ids[at % len(ids)]
                answer = client.get(f"/books/{book_id}/recommendations")
                if not answer.is_success:
                    report.failed += 1
                    continue
                body = answer.json()
                version = body["model"]["version"]
                report.read[version] += 1
                items = [item["book"]["id"] for item in body["items"]]
                is_named = answer.headers["bookclub-model"] == f"{body['model']['name']}/{version}"
                report.wrong += not is_named or items != expected[version, book_id]

    with ThreadPoolExecutor(READERS) as pool:
        readers = [pool.submit(read, start) for start in range(READERS)]
        try:
            yield
        finally:
            ended.set()
        for reader in readers:
            reader.result()


def swap(registry: Registry, api: str, version: ModelVersion) -> None:
    registry.promote(version)
    deadline = time.monotonic() + 30
    while httpx.get(f"{api}/model").json()["version"] != version.version:
        if time.monotonic() > deadline:
            sys.exit(f"Version {version.version} was not taken up within 30 s")
        time.sleep(0.02)


def swap_all(
    registry: Registry, api: str, versions: list[ModelVersion], count: int, process: psutil.Process, memory: list[int]
) -> None:
    """Swap `count` times; `memory` gets the resident bytes after each tenth of them."""
    for number in range(count):
        swap(registry, api, versions[number % len(versions)])
        if (number + 1) % max(1, count // 10) == 0:
            memory.append(process.memory_info().rss)


def without_postgres(folder: Path, api: str, paths: list[str], ids: list[int]) -> dict:  # type: ignore[type-arg]
    """Kill Postgres, which its supervisor starts again -> the statuses of lists and of books in the seconds after, and
    the slowest answer in seconds."""
    postmaster = int((folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    seen = {"known": Counter(), "books": Counter(), "slowest": 0.0}
    with httpx.Client(base_url=api, timeout=20, headers={"Accept-Encoding": "identity"}) as client:
        healed = 0
        for number in range(10_000):
            if number == 20:
                os.kill(postmaster, signal.SIGKILL)
            for kind, path in (("known", paths[number % len(paths)]), ("books", f"/books?cursor={number + 1}&limit=1")):
                answer = client.get(path)
                seen[kind][answer.status_code] += 1
                seen["slowest"] = max(seen["slowest"], answer.elapsed.total_seconds())
                if answer.status_code == 503 and "retry-after" not in answer.headers:
                    sys.exit(f"{path}: 503 without Retry-After")
            healed = healed + 1 if answer.is_success else 0
            if number > 60 and healed > 40:
                return seen
            time.sleep(0.01)
    sys.exit("Postgres did not come back")


def told(statuses: Counter[int]) -> str:
    return ", ".join(f"{count} times {status}" for status, count in sorted(statuses.items()))


if __name__ == "__main__":
    main()
