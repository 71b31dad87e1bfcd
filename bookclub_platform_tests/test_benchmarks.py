"""The benchmarks crawl and load as the platform does, so they must not fall behind it; Scrapy's half runs by hand."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bookclub_platform.sandbox import running
from bookclub_platform_tests.api_fixtures import shared_mlflow

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
COMMANDS = sorted(path.name for path in BENCHMARKS.glob("[!_]*.py"))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_benchmark_starts_without_wrk_and_the_peers(command: str) -> None:
    """As `make bench` starts it: its folder, and not the project's, is the first place for imports."""
    without_wrk = {"PATH": ""}
    asked = [sys.executable, str(BENCHMARKS / command), "--help"]
    done = subprocess.run(asked, env=os.environ | without_wrk, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"usage: {command}" in done.stdout


def test_make_bench_finds_each_benchmark_by_its_name() -> None:
    for name in ["serving", *(command.removesuffix(".py") for command in COMMANDS)]:
        told = subprocess.run(["make", "-n", "bench", f"BENCH={name}"], cwd=ROOT, capture_output=True, text=True)
        script = re.search(r"benchmarks/\w+\.py", told.stdout)
        assert script is not None and (ROOT / script[0]).exists(), told.stdout + told.stderr


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


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_swaps_under_load_and_a_killed_postgres_cost_no_reader_a_wrong_answer() -> None:
    registry, _ = shared_mlflow()
    command = [sys.executable, str(BENCHMARKS / "swaps.py"), "--registry", registry, "--books", "60", "--swaps", "4"]
    done = subprocess.run([*command, "--seconds", "2", "--per-second", "100"], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stdout
    swaps = int(done.stdout.split(" swaps and rollbacks")[0].split()[-1])
    assert swaps >= 4 and "failed: 0; mixed or wrong: 0 of" in done.stdout
    lists = next(line for line in done.stdout.splitlines() if line.startswith("Postgres killed"))
    assert "times 200" in lists and "503" not in lists  # from memory, all the time
