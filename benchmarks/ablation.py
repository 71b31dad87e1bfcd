"""A shop's books -> the model with one thing changed at a time -> how good and how healthy its lists are, as a table.

    python benchmarks/ablation.py                                    # the sandbox: half a minute
    python benchmarks/ablation.py --books ../shared/shop/books.jsonl --yardstick ../shared/yardstick --embedding

Quality. `readers`: nDCG@10 of the yardstick, if given, over all pairs and over pairs of different authors. `category`:
the share of ten neighbours in the book's category, which the model does not get. `halves`: the mean reciprocal rank of
a book's other half when each book is split in two by sentences, again without categories. Health: the share of books
that are in any list of ten, and the share of lists that contain the most frequent book. `--embedding` takes one or two
CPU minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import statistics
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from _books import Shelf, shelf
from numpy.typing import NDArray

from bookclub_platform.models import BookText, Tfidf, _lsa
from bookclub_platform.models._embedding import Encoder, centred
from bookclub_platform.models.tfidf import UNKNOWN_CATEGORIES

VARIANTS: dict[str, dict[str, Any]] = {
    "as chosen": {},
    **{f"title_weight={value}": {"title_weight": value} for value in (0, 1, 3)},
    **{f"category_name_weight={value}": {"category_name_weight": value} for value in (0, 2)},
    **{f"category_weight={value}": {"category_weight": value} for value in (0.0, 0.2, 0.4, 0.5)},
    "no category at all": {"category_weight": 0.0, "category_name_weight": 0},
    **{f"min_df={value}": {"min_df": value} for value in (1, 3, 5)},
    "placeholders are categories": {"unknown_categories": ()},
    "embedding=none": {"embedding": "none"},
    **{f"embedding_weight={value}": {"embedding_weight": value} for value in (0.1, 0.2, 0.3, 0.4, 0.6, 1.0)},
}
DIRECTIONS = (20, 40, 60, 100, 200)
WEIGHTS = (0.1, 0.2, 0.25, 0.3, 0.4, 0.6, 1.0)
HEAD = ("variant", "readers", "... other authors", "category", "halves", "recommended", "most frequent")


AnyTfidf = TypeVar("AnyTfidf", bound=Tfidf)


class WithSignal(Tfidf):
    """A model that also prefers books close in one number: `part` of the score comes from `signal`, (n,)."""

    signal: NDArray[np.float64]
    part: float

    def _scores(self, at: int) -> NDArray[np.float64]:
        alike = 1 - np.abs(self.signal - self.signal[at]) / np.ptp(self.signal)
        return (1 - self.part) * super()._scores(at) + self.part * alike


class Judge:
    """Evaluates each variant; without a yardstick the columns of `readers` stay empty."""

    def __init__(self, books: Shelf, yardstick: Path | None) -> None:
        self.books, self.yardstick = books, None
        if yardstick:
            spec = importlib.util.spec_from_file_location("yardstick", yardstick / "score.py")
            assert spec and spec.loader
            self.yardstick = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(self.yardstick)
            self.truth = json.loads((yardstick / "dev.json").read_text(encoding="utf-8"))

    def row(self, variant: str, model: Tfidf, proxies: tuple[float, float] | None = None) -> str:
        lists = {book: [near.book_id for near in model.recommend(book, 100)] for book in model.book_ids.tolist()}
        shown = Counter(near for listed in lists.values() for near in listed[:10])
        figures = [*self.readers(lists), *(proxies or ("", "")), len(shown) / len(lists)]
        figures.append(max(shown.values()) / len(lists))
        return " | ".join(["", variant, *(f"{x:.3f}" if x != "" else "" for x in figures), ""]).strip()

    def readers(self, lists: dict[int, list[int]]) -> tuple[Any, Any]:
        if not self.yardstick:
            return "", ""
        upc = dict(zip((row.id for row in self.books.rows), self.books.upcs, strict=True))
        by_upc = {upc[book]: [upc[near] for near in listed] for book, listed in lists.items()}
        figures = self.yardstick.score(by_upc, self.truth)
        return figures["ndcg@10"], figures["ndcg@10_other_authors"]


def agreement(rows: list[BookText], parameters: dict[str, Any]) -> float:
    """Share of ten neighbours in the book's category, which the model does not get; placeholder categories excluded."""
    category = {row.id: row.category for row in rows}
    blind = Tfidf(**parameters | {"unknown_categories": tuple(set(category.values()))}).fit(rows)  # gets no categories
    known = [row.id for row in rows if row.category not in UNKNOWN_CATEGORIES]
    return statistics.fmean(
        sum(category[near.book_id] == category[book] for near in blind.recommend(book, 10)) / 10 for book in known
    )


def other_half(rows: list[BookText], parameters: dict[str, Any]) -> float:
    """Mean reciprocal rank, among 100, of a book's other half; a half is every second sentence, without the title."""
    halves = []
    for row in rows:
        sentences = re.split(r"(?<=[.!?])\s+", row.description or "")
        if len(sentences) > 3:
            # Different titles, or both halves would count as the same work.
            halves += [
                row._replace(
                    id=2 * row.id + side, title=f"{2 * row.id + side}", description=" ".join(sentences[side::2])
                )
                for side in (0, 1)
            ]
    model = Tfidf(**parameters | {"unknown_categories": tuple({row.category for row in rows})}).fit(halves)
    found = [[near.book_id for near in model.recommend(half.id, 100)] for half in halves]
    ranks = [
        listed.index(half.id ^ 1) + 1 if half.id ^ 1 in listed else None
        for half, listed in zip(halves, found, strict=True)
    ]
    return statistics.fmean(1 / rank if rank else 0.0 for rank in ranks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--books", type=Path, help="JSON lines of a shop; without it the sandbox")
    parser.add_argument("--sandbox-books", type=int, default=1000)
    parser.add_argument("--yardstick", type=Path, help="folder with score.py and dev.json for the same books")
    parser.add_argument("--embedding", action="store_true", help="also the embedding, which needs its extra")
    options = parser.parse_args()
    books = shelf(options.books, options.sandbox_books)
    judge = Judge(books, options.yardstick)
    print("|", " | ".join(HEAD), "|\n|", " | ".join("---" for _ in HEAD), "|", flush=True)
    for variant, parameters in VARIANTS.items():
        proxies = agreement(books.rows, parameters), other_half(books.rows, parameters)
        print(judge.row(variant, Tfidf(**parameters).fit(books.rows), proxies), flush=True)
    for directions in DIRECTIONS:
        chosen = _lsa.DIMENSIONS, _lsa.BOOKS_EACH
        _lsa.DIMENSIONS, _lsa.BOOKS_EACH = directions, 1
        print(judge.row(f"{directions} directions", Tfidf().fit(books.rows)), flush=True)
        _lsa.DIMENSIONS, _lsa.BOOKS_EACH = chosen
    for name, signal in (("stars", books.stars), ("price", books.prices)):
        for part in (0.02, 0.1):
            model = searching(WithSignal().fit(books.rows))
            model.signal, model.part = np.array(signal, dtype=float), part
            print(judge.row(f"{name} make {part} of the score", model), flush=True)
    if options.embedding:
        embeddings(books, judge)


def searching(model: AnyTfidf) -> AnyTfidf:
    """`model` without the lists made during the fit, so that later changes to it take effect."""
    model.lists_ = None
    return model


def embeddings(books: Shelf, judge: Judge) -> None:
    """The embedding with different weights, then with other parameters, then not centred, as the encoder returns it."""
    texts = [f"{row.title}. {row.description or ''}" for row in books.rows]
    vectors = Encoder().encode(texts)
    mean = vectors.mean(axis=0)

    def fitted(vectors: NDArray[np.float32], weight: float, **parameters: Any) -> Tfidf:
        model = searching(Tfidf(embedding="none", embedding_weight=weight, **parameters).fit(books.rows))
        model.embedding_, model.embedding_mean_ = vectors, mean
        return model

    for weight in WEIGHTS:
        print(judge.row(f"minilm, embedding_weight={weight}", fitted(centred(vectors, mean), weight)), flush=True)
    for variant in ("category_weight=0.2", "category_weight=0.4", "no category at all", "min_df=1"):
        model = fitted(centred(vectors, mean), 0.25, **VARIANTS[variant])
        print(judge.row(f"minilm, {variant}", model), flush=True)
    print(judge.row("minilm, not centred", fitted(vectors, 0.25)), flush=True)


if __name__ == "__main__":
    main()
