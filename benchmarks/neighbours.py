"""Sizes -> made-up books -> fit, lists, save, load, requests, and the lists by two peers -> a Markdown table on stdout.

    python benchmarks/neighbours.py --books 1000 100000            # minutes
    python benchmarks/neighbours.py --books 1000000                # a quarter of an hour, 10 GB

Each of the three is a separate process, and they run one after another on the same vectors. A peer searches for all
books if that takes minutes; otherwise for a random sample (`--rows`) and for a twentieth of it, and the time difference
gives its rate for all other books.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# The most books that a peer searches for: a few minutes for each peer at 100,000 books.
ROWS = {"sparse_dot_topn": 100_000, "scikit_learn": 20_000}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument(
        "--rows", type=int, default=4_000, help="asked of a peer where there are more than 100,000 books"
    )
    options = parser.parse_args()
    for books in options.books:
        with tempfile.TemporaryDirectory() as folder:
            ours = run("_ours_neighbours.py", str(books), folder)
            most = {peer: options.rows if books > 100_000 else rows for peer, rows in ROWS.items()}
            peers = [run("_peer_neighbours.py", peer, folder, str(rows)) for peer, rows in most.items()]
        print(table(ours, peers), flush=True)


def run(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(HERE / program), *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def table(ours: dict[str, Any], peers: list[dict[str, Any]]) -> str:
    spent = ours["neighbour_seconds"]
    lines = [f"\n{ours['books']} books, {ours['entries']} entries", "", "| what | figure |", "|---|---|"]
    lines += [f"| {name} | {value:.3g} |" for name, value in ours.items() if name not in ("books", "entries")]
    for peer in peers:
        asked = "" if peer["rows"] == ours["books"] else f", from {peer['rows']} of them"
        lines += [
            f"| {peer['peer']}, lists of all{asked}, s | {peer['all_s']:.3g} |",
            f"| ours / {peer['peer']} | {spent / peer['all_s']:.3g} |",
            f"| peak of {peer['peer']}, MB | {peer['peak_mb']:.0f} |",
            f"| recall@10 of ours against {peer['peer']} | {peer['recall_at_10']:.4f} |",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
