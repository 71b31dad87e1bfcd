"""Books in Parquet -> the same fit here and on Spark -> seconds and peak memory of each, and that the models are one.

    python benchmarks/spark.py --books 100000                                         # made-up books
    python benchmarks/spark.py --jsonl ../shared/shop/books.jsonl --master 'local[2]'

Each side is a separate process that reads the books, fits and saves. Its memory is that of all its processes, sampled
ten times a second: `job` is that of Spark (driver, JVM and workers), `fit` that of the process that makes the model, as
the asset does. Needs the extra `spark`, and Java.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from _texts import made_up

from bookclub_platform.models import BookText, Tfidf
from bookclub_platform.spark import read_counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, default=1_000)
    parser.add_argument("--jsonl", type=Path, help="a shop's books as JSON lines, instead of made-up ones")
    parser.add_argument("--master", default="local[2]")
    parser.add_argument("--side", nargs=2, metavar=("SOURCE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        fit(*map(Path, options.side))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        books, counted = folder / "books.parquet", folder / "counted"
        write(list(made_up(options.books)) if options.jsonl is None else of_shop(options.jsonl), books)
        alone = measured("--side", str(books), str(folder / "alone"))
        job = measured("-m", "bookclub_platform.spark", books.as_uri(), str(counted), "--master", options.master)
        rest = measured("--side", str(counted), str(folder / "spark"))
        for side, figures in {"one process": alone, "spark: job": job, "spark: fit": rest}.items():
            print(side, json.dumps(figures), flush=True)
        print("largest difference of any array:", difference(folder / "alone", folder / "spark"))


def fit(source: Path, folder: Path) -> None:
    """Fit from Parquet or from Spark's counts, timed without the start of the interpreter."""
    started = time.perf_counter()
    if source.is_dir():
        model = Tfidf().learn(read_counted(source))
    else:
        table = pq.read_table(source, columns=list(BookText._fields))
        model = Tfidf().fit([BookText(*row) for row in zip(*(c.to_pylist() for c in table.columns), strict=True)])
    seconds = time.perf_counter() - started
    model.save(folder)
    print(json.dumps({"seconds": seconds} | model.counts | model.figures_))


def measured(*arguments: str) -> dict[str, Any]:
    """Run one of our programs -> the figures that it prints, with its time and peak memory."""
    own = [] if arguments[0] == "-m" else [__file__]
    started, peak = time.perf_counter(), 0
    with subprocess.Popen([sys.executable, *own, *arguments], stdout=subprocess.PIPE, text=True) as process:
        top = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, memory(top))
            time.sleep(0.1)
        assert process.stdout is not None
        said = json.loads(process.stdout.read())
    assert process.returncode == 0
    return said | {"wall_s": round(time.perf_counter() - started, 1), "peak_mb": round(peak / 2**20)}


def memory(top: psutil.Process) -> int:
    """Resident memory of a process and its descendants; pages that forked workers share count once for each."""
    total = 0
    for process in [top, *top.children(recursive=True)]:
        try:
            total += process.memory_info().rss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def difference(one: Path, other: Path) -> float:
    files = sorted(path.name for path in one.glob("*.npy"))
    assert files == sorted(path.name for path in other.glob("*.npy"))
    assert (one / "vocabulary.json").read_bytes() == (other / "vocabulary.json").read_bytes()
    pairs = [(np.load(one / file, mmap_mode="r"), np.load(other / file, mmap_mode="r")) for file in files]
    return max(float(np.abs(a - b).max(initial=0)) if a.dtype.kind == "f" else float((a != b).any()) for a, b in pairs)


def of_shop(path: Path) -> list[BookText]:
    lines = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts contain other line separators
    books = [json.loads(line) for line in lines if line]
    return [BookText(b["id"], b["title"], b["description"], b["category_slug"], b["category"]) for b in books]


def write(rows: list[BookText], path: Path) -> None:
    table = pa.table(dict(zip(BookText._fields, map(list, zip(*rows, strict=True)), strict=True)))
    pq.write_table(table, path, row_group_size=10_000, compression="zstd")


if __name__ == "__main__":
    main()
