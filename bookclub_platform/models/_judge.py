"""Books without any reader data -> the quality of a model's lists, by three proxies -> one score.

    judge = Judge(rows)                          # the same snapshot and queries for every model
    judgement = judge.judge(model)               # its scores, (q, 3), NaN where a proxy does not apply to a book

The proxies, each 0..1 for one list of ten:

    names       books that share a rare proper name or a series: nDCG, with the name removed from every text
    shelf       books of the same category, with the category hidden from the model
    agreement   books of the same category

No proxy is enough by itself: `names` and `shelf` reward words, and a model that knows only the category would win
`agreement`. The geometric mean of the three ranked 31 models like real readers do, with a rank correlation of 0.95
(names 0.64, shelf 0.81, agreement 0.75): docs/decisions/0009-judging-without-readers.md.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import BookText, FoldableModel
from bookclub_platform.models._gate import MIN_GAIN, Judgement

PROXIES = ("proxy_names", "proxy_shelf", "proxy_agreement")
LIMIT = 10
MOST_BOOKS = 20_000  # of a larger catalogue, an evenly spaced part is judged
_RAREST, _COMMONEST = 2, 4  # books with the name; a name in more books is a place or a publisher, seldom an author
_LARGEST_SERIES = 10

_NAME = re.compile(
    r"(?<![.!?:]\s)(?<!^)(?<![\"“])"  # the first word of a sentence is capitalised, name or not
    r"\b((?:[A-Z]\.\s?){1,2}[A-Z][a-z]{2,}|[A-Z][a-z]{2,}(?:\s[A-Z]\.)?\s[A-Z][a-z]{2,})\b"
)
_NO_NAME = re.compile(r"(?:The|A|An|His|Her|This|In|New|North|South|Number|One|Times|Book|Second)\b")
# To look first whether the bracket is closed, and to strip the name later, keeps it linear.
_SERIES = re.compile(r"\((?=[^()]*\))([^()]*?)(?:#|Vol\.?|Book|Volume)\s*[\d.\-]+[^()]*\)")
_WORD = re.compile(r"\w{3,}")


class _Query(NamedTuple):
    book_id: int
    relatives: Set[int]  # ids that share a name or series
    shelf: str | None
    shelf_size: int


class Judge:
    """Judges models on one snapshot of the catalogue.

    Args:
        rows: the listed books.
        unknown_categories: slugs that do not count as a shelf.
    """

    name = "proxies"
    min_gain = MIN_GAIN
    by_category = "share of the list that is of the same category"
    said = "three proxies"

    def __init__(self, rows: Sequence[BookText], unknown_categories: Collection[str] = ()) -> None:
        self.rows = _even_part(sorted(rows, key=lambda row: row.id), MOST_BOOKS)
        self._category = {row.id: row.category for row in self.rows}
        relatives, self._struck = _relatives(self.rows)
        sizes = Counter(row.category for row in self.rows)
        self._unshelved = [row._replace(category=_NOWHERE, category_name=_NOWHERE) for row in self.rows]
        self._queries = [
            _Query(row.id, relatives.get(row.id, frozenset()), shelf, sizes[row.category])
            for row in self.rows
            if (shelf := row.category if row.category not in unknown_categories and sizes[row.category] > 1 else None)
            or row.id in relatives
        ]

    @property
    def queries(self) -> NDArray[np.int64]:
        """(q,) ids of the books whose lists are judged."""
        return np.array([query.book_id for query in self._queries], dtype=np.int64)

    def judge(self, model: FoldableModel, faults: Sequence[str] = ()) -> Judgement:
        """Score `model`, as it is, over these rows; `faults` are the guardrails that it breaks."""
        scores = np.full((len(self._queries), len(PROXIES)), np.nan)
        folded = [model.fold(rows) for rows in (self._struck, self._unshelved, self.rows)]
        for at, query in enumerate(self._queries):
            lists = [[near.book_id for near in one.recommend(query.book_id, LIMIT)] for one in folded]
            if query.relatives:
                scores[at, 0] = ndcg(lists[0], query.relatives)
            if query.shelf is not None:
                scores[at, 1:] = [self._share(found, query) for found in lists[1:]]
        return Judgement(self.queries, scores, tuple(faults), PROXIES, self.said)

    def by_shelf(self, judgement: Judgement) -> dict[str, tuple[float, int]]:
        """Category -> (mean agreement of its books, number of these books)."""
        found: dict[str, list[float]] = defaultdict(list)
        for query, scores in zip(self._queries, judgement.scores, strict=True):
            if query.shelf is not None:
                found[query.shelf].append(float(scores[PROXIES.index("proxy_agreement")]))
        return {shelf: (sum(scores) / len(scores), len(scores)) for shelf, scores in found.items()}

    def _share(self, found: Sequence[int], query: _Query) -> float:
        """The share of the places that books of the same shelf take, of those that they could take."""
        same = sum(self._category[book_id] == query.shelf for book_id in found)
        return same / min(LIMIT, query.shelf_size - 1)


_NOWHERE = ""


def _even_part(rows: Sequence[BookText], most: int) -> Sequence[BookText]:
    if len(rows) <= most:
        return rows
    return [rows[at] for at in np.linspace(0, len(rows) - 1, most, dtype=int)]


def _relatives(rows: Sequence[BookText]) -> tuple[Mapping[int, Set[int]], list[BookText]]:
    """id -> the books that share a rare name or series with it; and the rows with these names and series removed."""
    names = [_names(row) for row in rows]
    series = [_series(row.title) for row in rows]
    in_books = Counter(name for found in names for name in found)
    holders: dict[tuple[str, str], set[int]] = defaultdict(set)
    struck = []
    for row, found, its_series in zip(rows, names, series, strict=True):
        rare = {name for name in found if _RAREST <= in_books[name] <= _COMMONEST}
        for name in rare:
            holders["name", name].add(row.id)
        for title in its_series:
            holders["series", title].add(row.id)
        struck.append(_without(row, {word for text in rare | its_series for word in _WORD.findall(text)}))
    relatives: dict[int, set[int]] = defaultdict(set)
    for group in holders.values():
        if 1 < len(group) <= _LARGEST_SERIES:
            for book_id in group:
                relatives[book_id] |= group - {book_id}
    return relatives, struck


def _names(row: BookText) -> set[str]:
    return {name for name in _NAME.findall(row.description or "") if not _NO_NAME.match(name)}


def _series(title: str) -> set[str]:
    return {name for found in _SERIES.findall(title) if (name := found.strip().rstrip(",").strip().lower())}


def _without(row: BookText, words: Set[str]) -> BookText:
    if not words:
        return row
    struck = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(words)))})\b", re.IGNORECASE)
    description = row.description and struck.sub(" ", row.description)
    return row._replace(title=struck.sub(" ", _SERIES.sub(" ", row.title)), description=description)


def ndcg(found: Sequence[int], wanted: Set[int]) -> float:
    gains = 1 / np.log2(np.arange(2, LIMIT + 2))
    hits = [book_id in wanted for book_id in found[:LIMIT]]
    return float(gains[: len(hits)] @ hits / gains[: len(wanted)].sum())
