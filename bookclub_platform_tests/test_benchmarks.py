"""The benchmarks crawl and load as the platform does, so they must not fall behind it; Scrapy's half runs by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from bookclub_platform.sandbox import running

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_our_half_finds_every_book_and_tells_what_it_cost() -> None:
    with running(books=40, seed=5) as address:
        command = [sys.executable, str(BENCHMARKS / "_ours.py"), address, "4"]
        figures = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert figures["books"] == 40
    assert 0 < figures["cpu_s"] < figures["process_cpu_s"] and figures["wall_s"] > 0
    assert figures["peak_mb"] > 20


def test_the_loads_are_measured_beside_copy() -> None:
    command = [sys.executable, str(BENCHMARKS / "load.py"), "--books", "500"]
    table = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    books, _, copied, *_, peak_mb = (cell.strip() for cell in table.splitlines()[-1].strip("|").split("|"))
    assert books == "500" and float(copied) > 0.0 and float(peak_mb) > 20
