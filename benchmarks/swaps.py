"""Two models -> hundreds of swaps and rollbacks under load, then Postgres killed under load -> what readers saw.

    python benchmarks/swaps.py                              # 200 swaps: 20 minutes
    python benchmarks/swaps.py --swaps 4 --seconds 2        # as the tests run it

wrk requests lists from the API at about `--per-second`, and separate reader threads check each response against the
models. Rounds of three kinds follow one another. In each, every `--every` seconds one thing is changed and its effect
awaited: the same champion is promoted again (quiet), the other model is promoted (swaps), or a price changes (books).
Nothing else differs between the kinds. Exits with 1 if a response failed or mixed two models.
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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
from _servers import UNLIMITED, Server, fill, mlflow_server, publish, serve
from _wrk import Load, load

from bookclub_platform.local.postgres import leased
from bookclub_platform.models import ModelVersion, Registry, Tfidf

CONNECTIONS = 16
READERS = 2
SETTLED_S = 5.0  # before a quiet round: the API fills its caches for some seconds after the previous round


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        work = Path(folder)
        url = running.enter_context(leased(work))
        ids, model = fill(url, options.books)
        address = options.registry or running.enter_context(mlflow_server(work))
        both = two_champions(Registry(address), address, url, model)
        environment = UNLIMITED | {"BOOKCLUB_DATABASE_URL": url, "MLFLOW_TRACKING_URI": address}
        environment |= {"BOOKCLUB_HOME": str(work / "home"), "BOOKCLUB_MODEL_POLL_S": "0.1"}
        api, process = running.enter_context(serve(environment))
        asked = ids[:: max(1, len(ids) // options.asked)]
        swapped = Swapped(Registry(address), api + paths_of(asked)[0], [version for version, _ in both])
        with httpx.Client(base_url=api, timeout=20, headers={"Accept-Encoding": "identity"}) as client:
            for _ in both:  # each list of both models once: caches are full, memory is at its peak
                swapped.swap()
                for path in paths_of(asked):
                    client.get(path)
        server = Server(url, api, process, asked[0])
        changes = {"quiet": swapped.stay, "swaps": swapped.swap, "books": server.change}
        report = Report()
        with reading(api, asked, {version.version: model for version, model in both}, report):
            seen = rounds(options, server, asked, changes, report)
        tell(seen, report)
        killed = without_postgres(work, api, paths_of(asked), asked)
        slowest_ms = killed["slowest"] * 1000
        print("Postgres killed under load, lists: " + told(killed["known"]))
        print(f"the same, what needs it (GET /books): {told(killed['books'])}; slowest {slowest_ms:.0f} ms")
        errors = sum(one.errors for loads in seen.values() for one in loads)
        bad = {status for kind in ("known", "books") for status in killed[kind]} - {200, 503}
        sys.exit(bool(errors or report.failed or report.wrong or bad))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1000)
    parser.add_argument("--asked", type=int, default=200, help="how many of the books are asked for")
    parser.add_argument("--swaps", type=int, default=200, help="at least so many")
    parser.add_argument("--seconds", type=float, default=10, help="of each round")
    parser.add_argument("--every", type=float, default=0.5, help="seconds from one change to the next, at least")
    parser.add_argument("--per-second", type=int, default=300)
    parser.add_argument("--registry", help="an MLflow server that runs already, for the models; else one is started")
    return parser.parse_args()


def two_champions(registry: Registry, address: str, url: str, model: Tfidf) -> list[tuple[ModelVersion, Tfidf]]:
    """Publish `model`, which becomes the champion, and another model of the same books."""
    publish(address, model)
    other = Tfidf(category_weight=0.0, title_weight=5).fit(rows_of(url))
    second = registry.publish(other, other.parameters, {}, {}, artifact_root=None)
    return [(registry.champion(model.name), model), (second, other)]


class Swapped:
    """Promotes the champion and the other model in turn."""

    def __init__(self, registry: Registry, address: str, versions: list[ModelVersion]) -> None:
        """`address`: a list, which costs next to nothing, so that polling after a swap does not distort the figures."""
        self._registry, self._client, self._address = registry, httpx.Client(timeout=20), address
        self._champion, self._other = versions
        self.count = 0

    def swap(self) -> None:
        self._champion, self._other = self._other, self._champion
        self.count += 1
        self.stay()

    def stay(self) -> None:
        """Promote the champion in the registry, and wait until the API uses it."""
        self._registry.promote(self._champion)
        deadline = time.monotonic() + 30
        while (
            self._client.get(self._address).headers.get("bookclub-model")
            != f"{self._champion.name}/{self._champion.version}"
        ):
            if time.monotonic() > deadline:
                sys.exit(f"Version {self._champion.version} was not taken up within 30 s")
            time.sleep(0.05)


def paths_of(ids: list[int]) -> list[str]:
    return [f"/books/{book_id}/recommendations" for book_id in ids]


def rounds(
    options: argparse.Namespace,
    server: Server,
    asked: list[int],
    changes: dict[str, Callable[[], None]],
    report: Report,
) -> dict[str, list[Load]]:
    """The loads of each kind: one round of each in turn, until there were enough swaps."""
    pause_ms = round(CONNECTIONS / options.per_second * 1000)
    seen: dict[str, list[Load]] = {kind: [] for kind in changes}
    with ThreadPoolExecutor(1) as pool:
        while report.changes["swaps"] < options.swaps:
            for kind, change in changes.items():
                if kind == "quiet":
                    time.sleep(min(SETTLED_S, options.seconds))
                loading = pool.submit(
                    load, server.process, server.address, paths_of(asked), options.seconds, CONNECTIONS, pause_ms
                )
                while not loading.done():
                    next_at = time.monotonic() + options.every
                    change()
                    report.changes[kind] += 1
                    time.sleep(max(0.0, next_at - time.monotonic()))
                seen[kind].append(loading.result())
            report.memory.append(server.process.memory_info().rss)
    return seen


def tell(seen: dict[str, list[Load]], report: Report) -> None:
    quiet = statistics.median(one.p99_ms for one in seen["quiet"])
    print(f"{report.changes['swaps']} swaps and rollbacks, {report.changes['books']} changes of the books")
    errors = sum(one.errors for loads in seen.values() for one in loads)
    print(f"failed: {errors + report.failed}; mixed or wrong: {report.wrong} of {sum(report.read.values())} checked")
    for kind, loads in seen.items():
        p50, p99 = (statistics.median(getattr(one, field) for one in loads) for field in ("p50_ms", "p99_ms"))
        per_s = statistics.mean(one.per_s for one in loads)
        print(f"{kind}: {per_s:.0f} lists/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {p99 / quiet:.2f} times quiet; "
              f"p99 of the rounds: {', '.join(f'{one.p99_ms:.1f}' for one in loads)}")  # fmt: skip
    print("memory, MB: " + ", ".join(f"{rss / 2**20:.0f}" for rss in report.memory))


def rows_of(url: str) -> list:  # type: ignore[type-arg]
    import sqlalchemy as sa

    from bookclub_platform.core.database import database_urls
    from bookclub_platform.core.tables import select_training_rows
    from bookclub_platform.models import BookText

    with sa.create_engine(database_urls(url).books).connect() as connection:
        return [BookText(*row) for row in connection.execute(select_training_rows())]


class Report:
    """What the checking readers saw (`read`: responses by version), the number of changes of each kind, and resident
    bytes after each round."""

    def __init__(self) -> None:
        self.failed = self.wrong = 0
        self.read: Counter[str] = Counter()
        self.changes: Counter[str] = Counter()
        self.memory: list[int] = []


@contextmanager
def reading(api: str, ids: list[int], models: dict[str, Tfidf], report: Report) -> Iterator[None]:
    """Run readers that check every response, until the block ends."""
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


def without_postgres(folder: Path, api: str, paths: list[str], ids: list[int]) -> dict:  # type: ignore[type-arg]
    """Kill Postgres, which its supervisor restarts -> the statuses of lists and of books in the seconds after, and the
    slowest response in seconds."""
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
