"""A shop process -> the same crawl by us and by Scrapy, in turn -> ratios on stdout, as a Markdown table.

    python benchmarks/crawl.py                        # 1,000 books, five rounds: about a minute
    python benchmarks/crawl.py --shop PATH/serve.py   # any program that prints its address and takes --port
    python benchmarks/crawl.py --memory 100000        # ours alone, once: peak memory; takes minutes

Each crawl is a separate process. A round is one crawl by each; the order alternates from round to round, so that other
work on the machine and the warmth of the shop affect both. The first round is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CRAWLERS = {"ours": HERE / "_ours.py", "scrapy": HERE / "_scrapy.py"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1000, help="in the sandbox shop")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--shop", type=Path, help="a shop of your own instead of the sandbox")
    parser.add_argument("--memory", type=int, metavar="BOOKS", help="peak memory of ours, at 1,000 and at BOOKS")
    options = parser.parse_args()
    if options.memory:
        for books in (1000, options.memory):
            with shop(None, books) as address:
                print(memory_line(crawl("ours", address, options.concurrency)), flush=True)
        return
    with shop(options.shop, options.books) as address:
        rounds = list(turns(address, options.rounds, options.concurrency))
    print(table(rounds))


@contextmanager
def shop(program: Path | None, books: int) -> Iterator[str]:
    """Start the shop in a separate process -> its address."""
    made_up = ["-m", "bookclub_platform.sandbox", "--books", str(books)]
    command = [sys.executable, *([str(program)] if program else made_up), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().split()[-1].rstrip("/")
        finally:
            server.terminate()


def turns(address: str, rounds: int, concurrency: int) -> Iterator[dict[str, dict[str, Any]]]:
    for number in range(rounds + 1):
        names = list(CRAWLERS) if number % 2 else list(reversed(CRAWLERS))
        done = {name: crawl(name, address, concurrency) for name in names}
        if len({(figures["books"], figures["rows"]) for figures in done.values()}) != 1:
            sys.exit(f"The two did not find the same books: {done}")
        if number:
            yield done


def crawl(name: str, address: str, concurrency: int) -> dict[str, Any]:
    command = [sys.executable, str(CRAWLERS[name]), address, str(concurrency)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
    figures: dict[str, Any] = json.loads(done.stdout)
    figures["books_per_s"] = figures["books"] / figures["wall_s"]
    figures["cpu_s_per_1000"] = figures["cpu_s"] / figures["books"] * 1000
    return figures


def table(rounds: list[dict[str, dict[str, Any]]]) -> str:
    lines = [
        f"{rounds[0]['ours']['books']} books, {len(rounds)} rounds, {os.cpu_count()} cores; median (lowest to highest)",
        "",
        "| | ours | Scrapy | ours / Scrapy |",
        "|---|---|---|---|",
    ]
    for label, name in {
        "books per second": "books_per_s",
        "CPU seconds per 1,000 books": "cpu_s_per_1000",
        "CPU seconds of the whole process": "process_cpu_s",
        "peak memory, MB": "peak_mb",
    }.items():
        columns = [[one[crawler][name] for one in rounds] for crawler in CRAWLERS]
        ratios = [ours / scrapy for ours, scrapy in zip(*columns, strict=True)]
        lines.append(f"| {label} | " + " | ".join(spread(values) for values in [*columns, ratios]) + " |")
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def memory_line(figures: dict[str, Any]) -> str:
    return (
        "{books} books: peak {peak_mb:.0f} MB, largest worker {worker_peak_mb:.0f} MB, {books_per_s:.0f} books/s, "
        "{cpu_s_per_1000:.2f} CPU s per 1,000 books"
    ).format_map(figures)


if __name__ == "__main__":
    main()
