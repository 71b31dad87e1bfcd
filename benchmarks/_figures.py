"""One crawl -> its cost: wall-clock seconds, CPU seconds including child processes, peak memory; and a checksum of the
books, which shows that two crawlers have found the same ones."""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import time
from typing import Self

FIELDS = (
    "source", "url", "category", "category_name", "upc", "title", "price", "rating", "availability", "description",
    "num_reviews", "image_url",
)  # fmt: skip
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Digest:
    """Sum of the rows' hashes: the same for the same rows in any order."""

    def __init__(self) -> None:
        self.books = self.value = 0

    def add(self, row: dict[str, str | None]) -> None:
        # The line breaks around a text are markup, and lxml and BeautifulSoup may differ in whether they keep them.
        text = json.dumps([(row[name] or "").strip() for name in FIELDS])
        self.books += 1
        self.value = (self.value + int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())) % 2**64


class Stopwatch:
    """From the start of the block to its end."""

    def __enter__(self) -> Self:
        self.started, self.cpu_before = time.perf_counter(), _cpu_s()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self.started, _cpu_s() - self.cpu_before

    def report(self, rows: Digest) -> None:
        peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        figures = {
            "books": rows.books,
            "rows": f"{rows.value:016x}",
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "process_cpu_s": _cpu_s(),
            "peak_mb": peaks[0] * RSS_UNIT / 2**20,
            "worker_peak_mb": peaks[1] * RSS_UNIT / 2**20,
        }
        print(json.dumps(figures), flush=True)


def peak_mb() -> float:
    """Peak memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT / 2**20


def _cpu_s() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)
