"""Planted retrains -> how often the gate promotes each kind -> a Markdown table on stdout.

    python benchmarks/gate.py                             # 200 of each kind over the sandbox's books: some minutes
    python benchmarks/gate.py --shop http://127.0.0.1:8900 --retrains 50

    retrain     champion and challenger each fitted on a different random 97 % of the books, like models of two weeks
    noise       champion and challenger each without a different random 3 % of their terms: neither is better
    worse       the challenger without a random half of its terms
    better      the champion without a random half of its terms
    one book    the challenger recommends the same ten books for every book
    a quarter   as better, and the challenger shows only a random quarter of the shop

Champion and challenger are real models, judged with the guardrails as in the asset `tfidf_model`; within a kind, no two
are alike.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize

from bookclub_platform import sandbox
from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import RawBook
from bookclub_platform.core.settings import Settings
from bookclub_platform.models import BookText, Judge, Recommendation, Tfidf, decide, list_health
from bookclub_platform.models._embedding import centred
from bookclub_platform.models.tfidf import UNKNOWN_CATEGORIES
from bookclub_platform.sources import Fetcher, crawl_category, iter_raw_books, sources


class Planted:
    """A model without some of its terms, or with only some of its books, or with the same list for every book. It ranks
    all books in one pass, because a thousand models are judged here."""

    name = "planted"

    def __init__(
        self, base: Tfidf, kept: NDArray[np.bool_], shown: NDArray[np.bool_] | None = None, same_for_all: bool = False
    ) -> None:
        self.base, self.kept, self.shown, self.same_for_all = base, kept, shown, same_for_all

    @property
    def book_ids(self) -> NDArray[np.int64]:
        return self.base.book_ids

    @property
    def nbytes(self) -> int:
        return self.base.nbytes

    def fold(self, rows: Sequence[BookText]) -> Planted:
        key = id(self.base), id(rows)
        if key not in _FOLDED:
            _FOLDED[key] = self.base, self.base.fold(rows)
        folded = Planted(_FOLDED[key][1], self.kept, self.shown, self.same_for_all)
        folded._rank()
        return folded

    def _rank(self) -> None:
        index = self.base.index_.by_book
        vectors = csr_matrix((index.data, index.indices, index.indptr), shape=(len(self.book_ids), len(self.kept)))
        vectors = normalize(vectors.multiply(self.kept[None]).tocsr())
        scores = (vectors @ vectors.T).toarray()
        if self.base.embedding_components_ is not None and self.base.embedding_mean_ is not None:
            sense = centred(vectors @ self.base.embedding_components_.T, self.base.embedding_mean_)
            part = self.base.embedding_weight
            scores = (1 - part) * scores + part * np.maximum(sense @ sense.T, 0)
        works = self.base.works_
        scores[works[:, None] == works] = 0
        scores[:, works != np.arange(len(works))] = (
            0  # only the first edition of each work, or a list could contain a work twice
        )
        if self.shown is not None:
            scores[:, ~self.shown] = 0
        self.order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
        self.found = np.take_along_axis(scores, self.order, axis=1)

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        if self.same_for_all:
            return [Recommendation(int(other), 1.0, []) for other in self.book_ids[:limit] if other != book_id]
        at = int(np.searchsorted(self.book_ids, book_id))
        return [
            Recommendation(int(self.book_ids[other]), float(score), [])
            for other, score in zip(self.order[at, :limit], self.found[at], strict=False)
            if score > 0
        ]


_FOLDED: dict[tuple[int, int], tuple[Tfidf, Tfidf]] = {}
"""By the ids of base and rows: (base, folded). The base is held, or another could get its id."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--retrains", type=int, default=200, help="of each kind")
    parser.add_argument("--shop", help="the address of a shop; none: the sandbox's books")
    parser.add_argument("--kinds", nargs="+", help="of those above; without it all")
    parser.add_argument("--gains", action="store_true", help="every gain, on the standard error")
    options = parser.parse_args()
    rows = books(options.shop)
    judge, base = Judge(rows, UNKNOWN_CATEGORIES), Tfidf().fit(rows)
    random = np.random.default_rng(1)
    whole = np.ones(len(base.vocabulary_), dtype=bool)

    def without(share: float) -> Planted:
        return Planted(base, whole & (random.random(len(whole)) >= share))

    def of_a_week() -> Planted:
        if len(_FOLDED) > 6:  # left over from earlier pairs
            _FOLDED.clear()
        model = Tfidf().fit([row for row in rows if random.random() < 0.97])
        return Planted(model, np.ones(len(model.vocabulary_), dtype=bool))

    kinds: dict[str, Callable[[], tuple[Planted, Planted]]] = {
        "retrain": lambda: (of_a_week(), of_a_week()),
        "noise": lambda: (without(0.03), without(0.03)),
        "worse": lambda: (without(0.03), without(0.5)),
        "better": lambda: (without(0.5), without(0.03)),
        "one book": lambda: (without(0.03), Planted(base, whole, same_for_all=True)),
        "a quarter": lambda: (without(0.5), Planted(base, whole, shown=random.random(len(rows)) < 0.25)),
    }
    print(f"{len(rows)} books, {len(judge.queries)} queries\n")
    print("| kind | retrains | promoted | gain: median | largest | smallest |\n|---|---|---|---|---|---|")
    for kind, pair in kinds.items():
        if options.kinds and kind not in options.kinds:
            continue
        promoted, gains = 0, []
        for _ in range(options.retrains):
            champion, challenger = pair()
            health = [list_health(one.fold(rows), rows) for one in (challenger, champion)]
            decision = decide(judge.judge(challenger, health[0].faults(health[1])), judge.judge(champion))
            promoted += decision.is_promoted
            gains.append(decision.figures.get("gain", float("nan")))
        spread = f"{np.median(gains):+.4f} | {max(gains):+.4f} | {min(gains):+.4f}"
        print(f"| {kind} | {options.retrains} | {promoted / options.retrains:.1%} | {spread} |", flush=True)
        if options.gains:
            print(f"{kind}: {np.round(sorted(gains), 4).tolist()}", file=sys.stderr, flush=True)


def books(address: str | None) -> list[BookText]:
    if address is None:
        with sandbox.running(1000, 0) as made_up:
            return books(made_up)
    shop = next(source for source in sources(Settings(shop_url=address)) if source.name == "books_toscrape")
    found: list[BookText] = []
    with tempfile.TemporaryDirectory() as folder, Fetcher(delay_s=0, concurrency=8) as fetcher:
        for category in shop.categories(fetcher):
            report = crawl_category(shop, category, fetcher, Path(folder), "1")
            raw = [row for row in iter_raw_books(shop, category.slug, report.path) if isinstance(row, RawBook)]
            for book in clean(raw).books:
                found.append(BookText(len(found) + 1, book.title, book.description, book.category, book.category_name))
    return found


if __name__ == "__main__":
    main()
