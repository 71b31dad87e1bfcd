"""A saved model's vectors -> the 20 nearest of its books by a peer -> one line of JSON. Started by neighbours.py.

    python benchmarks/_peer_neighbours.py sparse_dot_topn FOLDER ROWS       the peer; ROWS: how many books to query

If ROWS is less than all books, they are drawn at random, and `all_s` extrapolates their rate to all books.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from _figures import peak_mb
from scipy.sparse import csr_matrix

K = 20


def main(peer: str, folder: Path, rows: int) -> None:
    indptr, indices, data = (np.load(folder / f"by_book.{part}.npy") for part in ("indptr", "indices", "data"))
    works = np.load(folder / "works.npy")
    matrix = csr_matrix(
        (data, indices.astype(np.int32), indptr.astype(np.int32)), shape=(len(indptr) - 1, 1 + indices.max())
    )
    n = matrix.shape[0]
    asked = np.arange(n) if rows >= n else np.sort(np.random.default_rng(9).choice(n, rows, replace=False))
    started = time.perf_counter()
    ids, scores = PEERS[peer](matrix, asked)
    spent = time.perf_counter() - started
    if len(asked) < n:
        few = asked[::20]
        started = time.perf_counter()
        PEERS[peer](matrix, few)
        spent_few = time.perf_counter() - started  # nearly all of it is preparation, done once for all books
        spent = spent_few + (spent - spent_few) / (len(asked) - len(few)) * (n - len(few))
    figures = {"peer": peer, "rows": len(asked), "all_s": spent, "peak_mb": peak_mb()}
    print(json.dumps(figures | {"recall_at_10": recall(folder, works, asked, ids, scores)}), flush=True)


def sparse_dot_topn(matrix: csr_matrix, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sparse_dot_topn import sp_matmul_topn

    found = sp_matmul_topn(matrix[asked], matrix.T.tocsr(), top_n=K + 1, n_threads=os.cpu_count(), sort=True)
    ids, scores = np.full((len(asked), K + 1), -1), np.zeros((len(asked), K + 1))
    lengths = np.diff(found.indptr)
    place = np.arange(found.nnz) - np.repeat(found.indptr[:-1], lengths)
    owners = np.repeat(np.arange(len(asked)), lengths)
    ids[owners, place], scores[owners, place] = found.indices, found.data
    return ids, scores


def scikit_learn(matrix: csr_matrix, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=K + 1, metric="cosine", algorithm="brute", n_jobs=-1).fit(matrix)
    parts = [search.kneighbors(matrix[part]) for part in np.array_split(asked, max(1, len(asked) // 2_000))]
    return np.concatenate([ids for _, ids in parts]), 1 - np.concatenate([distances for distances, _ in parts])


def recall(folder: Path, works: np.ndarray, asked: np.ndarray, ids: np.ndarray, scores: np.ndarray) -> float:
    """recall@10 of the model's own lists against this peer's, over at most 2,000 of the books."""
    mine = np.load(folder / "nearest.scores.npy", mmap_mode="r")
    found = wanted = 0
    for at in range(0, len(asked), max(1, len(asked) // 2_000)):
        of_work: dict[int, float] = {}
        for book, score in zip(ids[at], scores[at], strict=True):
            if book >= 0 and score > 1e-6 and works[book] != works[asked[at]]:
                of_work.setdefault(int(works[book]), float(score))
        best = list(of_work.values())[:10]
        wanted += len(best)
        found += min(len(best), int((mine[asked[at], :10] >= best[-1] - 1e-5).sum())) if best else 0
    return found / max(1, wanted)


PEERS = {"sparse_dot_topn": sparse_dot_topn, "scikit_learn": scikit_learn}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
