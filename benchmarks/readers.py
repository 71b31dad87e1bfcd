"""A real catalogue, real pairs of books that readers read, made-up readers -> from how many on they judge well.

    python benchmarks/readers.py --books ../shared/shop/books.jsonl --yardstick ../shared/yardstick     # some minutes

The readers' taste follows the yardstick's pairs, and their number grows. Each time models/_readers.py judges 34 models,
and their order is compared (Spearman) with the order of the yardstick itself; so is the order of the proxies. Tables on
stdout, one for each question:

    order       from how many readers on is their order better than the proxies'?
    gate        with just enough readers, which planted retrains are promoted?
    loop        which of two models wins, judged by what readers took from the lists of one or of the other?
    accounts    how many accounts that like a worse model's lists does it take to get that model promoted?
    clicks      would clicks help, counted as likes?
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from _books import Shelf, shelf
from _tastes import Ranked, Tastes, every_pair
from ablation import VARIANTS
from ablation import Judge as Yardstick
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.stats import spearmanr
from sklearn.preprocessing import normalize

from bookclub_platform.core.feedback import MOST_LIKES
from bookclub_platform.models import Judge, Readers, Step, Tfidf, decide
from bookclub_platform.models.tfidf import UNKNOWN_CATEGORIES

MORE_VARIANTS = {
    **{f"min_df={value}": {"min_df": value} for value in (10, 30, 100)},
    **{f"title_weight={value}": {"title_weight": value} for value in (5, 15)},
    **{f"category_weight={value}": {"category_weight": value} for value in (0.1, 0.6, 1.2)},
    **{f"embedding_weight={value}": {"embedding_weight": value} for value in (0.1, 0.4, 0.7, 1.0)},
    **{f"no embedding, min_df={value}": {"embedding": "none", "min_df": value} for value in (2, 5, 30)},
    "no embedding, no category": {"embedding": "none", "category_weight": 0.0, "category_name_weight": 0},
    "category_name_weight=3": {"category_name_weight": 3},
}
BEST = 19
LEAST_GAINS = (0.015, 0.02, 0.025, 0.03)
GROUP = 4  # accounts that act together: fewer produce few pairs
POOL = 40  # models of each kind; a retrain is a pair of them
ENOUGH, TASTE = 4_000, 0.5  # just enough readers


class Bench:
    """The models, their scores by the yardstick and by the proxies, and simulated readers."""

    def __init__(self, books: Shelf, yardstick: Path) -> None:
        self.books = books
        by_yardstick, by_proxies = Yardstick(books, yardstick), Judge(books.rows, UNKNOWN_CATEGORIES)
        id_of = dict(zip(books.upcs, (row.id for row in books.rows), strict=True))
        self.pairs = every_pair(by_yardstick.truth["relevant"], id_of)
        self.models: dict[str, Ranked] = {}
        truth, proxies = [], []
        for name, parameters in (VARIANTS | MORE_VARIANTS).items():
            model = Tfidf(**parameters).fit(books.rows)
            self.models[name] = Ranked.of(model)
            proxies.append(by_proxies.judge(model).score)
        random = np.random.default_rng(0).random((len(books.rows),) * 2)
        shelves = np.array([row.category for row in books.rows])
        for name, scores in (("random", random), ("category", random / 2 + (shelves[:, None] == shelves[None]))):
            np.fill_diagonal(scores, 0)
            self.models[name] = Ranked.by(scores)
        for model in self.models.values():
            lists = {book: [near.book_id for near in model.recommend(book, 100)] for book in model.book_ids.tolist()}
            truth.append(float(np.mean(by_yardstick.readers(lists))))
        self.truth, self.proxies = np.array(truth), np.array(proxies)
        self.best = np.argsort(-self.truth)[:BEST]

    def tastes(self, seed: int) -> Tastes:
        return Tastes(len(self.books.rows), self.pairs, seed)

    def readers(self, steps: Sequence[Step]) -> Readers:
        return Readers(self.books.rows, steps, UNKNOWN_CATEGORIES)

    def order(self, readers: Readers) -> tuple[float, float]:
        """The rank correlation with the yardstick, over all models and over the best."""
        scores = np.array([readers.judge(model).score for model in self.models.values()])
        return rank(scores, self.truth), rank(scores[self.best], self.truth[self.best])


def rank(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(spearmanr(one, other).statistic)


def order(bench: Bench, draws: int) -> None:
    fitted = len(bench.proxies)
    best = [at for at in bench.best.tolist() if at < fitted]
    print(f"proxies: {rank(bench.proxies, bench.truth[:fitted]):.2f} over the {fitted} that they can judge, "
          f"{rank(bench.proxies[best], bench.truth[best]):.2f} over the best {len(best)}\n")  # fmt: skip
    print("| taste | readers | likes each | queries | over all: mean, lowest | over the best 19: mean, lowest |")
    print("|---|---|---|---|---|---|")
    sizes = [(taste, n, 6) for taste in (0.5, 0.25) for n in (1000, 2000, 3000, 4000, 6000, 10000, 20000)]
    for taste, n, mean in [*sizes, *((0.5, n, 20) for n in (250, 500, 1000))]:
        judges = [bench.readers(bench.tastes(seed).likes(n, taste, mean)) for seed in range(draws)]
        found = np.array([bench.order(one) if len(one.rows) > 20 else (np.nan, np.nan) for one in judges])
        cells = [f"{np.mean(column):.2f}, {np.min(column):.2f}" for column in found.T]
        queries = "{:.0f} to {:.0f}".format(*np.quantile([len(one.rows) for one in judges], [0, 1]))
        print(f"| {taste} | {n:,} | {mean} | {queries} | {' | '.join(cells)} |", flush=True)
    for n in (1000, 5000, 20000, 100000):
        noise = bench.readers(bench.tastes(0).likes(n, 0))
        print(f"| 0 | {n:,} | 6 | {len(noise.rows)} | | |", flush=True)


def gate(bench: Bench, retrains: int, n: int, taste: float) -> None:
    rows = bench.books.rows
    base, random = Tfidf().fit(rows), np.random.default_rng(1)

    def without(share: float) -> Ranked:
        return without_terms(base, random.random(len(base.vocabulary_)) >= share)

    def of_a_week() -> Ranked:
        return Ranked.of(Tfidf().fit([row for row in rows if random.random() < 0.97]).fold(rows))

    weeks, whole, half = (
        [make() for _ in range(POOL)] for make in (of_a_week, lambda: without(0.03), lambda: without(0.5))
    )
    same = Ranked(np.tile(np.arange(1, len(rows) + 1), (len(rows), 1)))
    kinds = {  # champions, challengers
        "retrain": (weeks, weeks),
        "noise": (whole, whole),
        "worse": (whole, half),
        "better": (half, whole),
        "one book": (whole, [same]),
    }
    judges = [bench.readers(bench.tastes(seed).likes(n, taste)) for seed in range(10)]
    print(f"\n{n:,} readers, taste {taste}, queries: {[len(judge.rows) for judge in judges]}\n")
    heads = " | ".join(f"promoted at {least}" for least in LEAST_GAINS)
    print(f"| kind | retrains | {heads} | gain: median | largest | smallest |\n|{'---|' * (5 + len(LEAST_GAINS))}")
    for kind, (champions, challengers) in kinds.items():
        pairs = [(one, other) for one in champions for other in challengers if one is not other]
        decisions = []
        for turn, at in enumerate(random.choice(len(pairs), size=retrains, replace=len(pairs) < retrains).tolist()):
            champion, challenger = pairs[at]
            judge = judges[turn % len(judges)]
            decisions.append(decide(judge.judge(challenger), judge.judge(champion)))
        gains = [decision.figures["gain"] for decision in decisions]
        spread = f"{np.median(gains):+.4f} | {max(gains):+.4f} | {min(gains):+.4f}"
        is_sure = np.array([decision.figures["gain_lower_bound"] > 0 for decision in decisions])
        promoted = " | ".join(f"{np.mean(is_sure & (np.array(gains) >= least)):.1%}" for least in LEAST_GAINS)
        print(f"| {kind} | {retrains} | {promoted} | {spread} |", flush=True)


def without_terms(model: Tfidf, kept: NDArray[np.bool_]) -> Ranked:
    index = model.index_.by_book
    vectors = csr_matrix((index.data, index.indices, index.indptr), shape=(len(model.book_ids), len(kept)))
    vectors = normalize(vectors.multiply(kept[None]).tocsr())
    scores = (vectors @ vectors.T).toarray()
    np.fill_diagonal(scores, 0)
    return Ranked.by(scores)


def loop(bench: Bench, draws: int, n: int, taste: float) -> None:
    """The gain of `one` over `other`, which the yardstick rates as equally good, by whose lists were shown."""
    one, other = "embedding_weight=1.0", "title_weight=1"
    models, names = bench.models, list(bench.models)
    print(f"\n{one} ({bench.truth[names.index(one)]:.3f}) against {other} ({bench.truth[names.index(other)]:.3f}), "
          f"{n:,} readers\n\n| shown | walks | queries | gain | promoted |\n|---|---|---|---|---|")  # fmt: skip
    for shown in (None, one, other):
        for walks in (True, False):
            gains, promoted, queries = [], 0, []
            for seed in range(draws):
                tastes = bench.tastes(seed)
                steps = tastes.shown(n, taste, models[shown]) if shown else tastes.likes(n, taste)
                judge = bench.readers(steps if walks else [step._replace(for_book_id=step.book_id) for step in steps])
                of_one, of_other = judge.judge(models[one]), judge.judge(models[other])
                gains.append(of_one.score - of_other.score)
                promoted += decide(of_one, of_other, judge.min_gain).is_promoted
                queries.append(len(judge.rows))
            held = "held apart" if walks else "ignored"
            print(f"| {shown or 'neither'} | {held} | {np.mean(queries):.0f} | "
                  f"{np.mean(gains):+.4f} ({min(gains):+.4f} to {max(gains):+.4f}) | {promoted} of {draws} |",
                  flush=True)  # fmt: skip


def accounts(bench: Bench, draws: int, n: int, taste: float) -> None:
    """Hostile accounts in groups of GROUP. A group likes the same books: a chain through the worse model's lists."""
    worse, better = bench.models["min_df=10"], bench.models["as chosen"]
    print(f"\n{n:,} honest readers\n\n| hostile accounts | queries | gain of the worse | promoted |\n|---|---|---|---|")
    for hostile in (0, 1, GROUP, 10 * GROUP, 25 * GROUP, 50 * GROUP):
        gains, promoted, queries = [], 0, []
        for seed in range(draws):
            tastes = bench.tastes(seed)
            steps = tastes.likes(n, taste)
            for reader in range(hostile):
                told = praised(worse, MOST_LIKES, seed=1000 * seed + reader // GROUP)
                steps += [Step(n + reader, book, book, True) for book in told]
            judge = bench.readers(steps)
            decision = decide(judge.judge(worse), judge.judge(better), judge.min_gain)
            gains.append(decision.figures["gain"])
            promoted += decision.is_promoted
            queries.append(len(judge.rows))
        print(f"| {hostile} | {np.mean(queries):.0f} | {np.mean(gains):+.4f} (highest {max(gains):+.4f}) | "
              f"{promoted} of {draws} |", flush=True)  # fmt: skip


def praised(model: Ranked, most: int, seed: int) -> list[int]:
    """A chain of books, each in this model's list of an earlier one."""
    told = [int(np.random.default_rng(seed).choice(model.book_ids))]
    for book in told:
        told += [near.book_id for near in model.recommend(book, 5) if near.book_id not in told]
        if len(told) >= most:
            break
    return told[:most]


def clicks(bench: Bench, draws: int, n: int, taste: float) -> None:
    print("\n| clicks | taste of a click | queries | over all | over the best 19 |\n|---|---|---|---|---|")
    for per_like, to_taste in ((0, 0.0), (3, taste), (3, taste / 2), (3, taste / 5), (3, 0.0)):
        found, queries = [], []
        for seed in range(draws):
            tastes = bench.tastes(seed)
            steps = tastes.likes(n, taste)
            judge = bench.readers(steps + tastes.clicks(steps, to_taste, per_like))
            found.append(bench.order(judge))
            queries.append(len(judge.rows))
        cells = " | ".join(f"{mean:.2f}" for mean in np.mean(found, axis=0))
        print(f"| {per_like} a like | {to_taste} | {np.mean(queries):.0f} | {cells} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=Path, required=True, help="JSON lines of a shop")
    parser.add_argument("--yardstick", type=Path, required=True, help="folder with score.py and dev.json for its books")
    parser.add_argument("--draws", type=int, default=10, help="of readers, for each line")
    parser.add_argument("--retrains", type=int, default=200, help="of each kind")
    parser.add_argument("--only", choices=list(QUESTIONS))
    options = parser.parse_args()
    bench = Bench(shelf(options.books, 0), options.yardstick)
    for name, ask in QUESTIONS.items():
        if options.only in (None, name):
            ask(bench, options)


QUESTIONS: dict[str, Callable[[Bench, argparse.Namespace], None]] = {
    "order": lambda bench, asked: order(bench, asked.draws),
    "gate": lambda bench, asked: gate(bench, asked.retrains, ENOUGH, TASTE),
    "loop": lambda bench, asked: loop(bench, asked.draws, 5 * ENOUGH, TASTE),
    "accounts": lambda bench, asked: accounts(bench, asked.draws, ENOUGH, TASTE),
    "clicks": lambda bench, asked: clicks(bench, asked.draws, ENOUGH // 2, TASTE),
}

if __name__ == "__main__":
    main()
