"""A question and a text -> how much of it stands there word after word, and the text in pieces, matched ones marked.

    found = find([model], "the lihgthouse keeper", limit=2000)
    found.scores               ->  {17: 0.41, 3: 0.2, ...}      by the model's index alone, the best first
    found.score(17, [title, description])      ->  0.62         with what its texts say
    reader = Reader([(index, question)])
    reader.in_order(text)      ->  0.75: three of four pairs of neighbouring words of the question are neighbours here
    reader.pieces(title)       ->  [Piece("The ", False), Piece("Lighthouse", True)]
    reader.snippet(text)       ->  the same of the part of a text that has the most of it

Pieces are text and nothing else: who shows them escapes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from sys import intern
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import Model
from bookclub_platform.models._search import IN_ORDER, Question, SearchableModel, SearchIndex, stemmer, words

SNIPPET_WORDS = 32
_HEAD = 3  # letters that a form of a word has in common with it
_SHOWN = re.compile(r"[^\W_]+(?:['\N{RIGHT SINGLE QUOTATION MARK}][^\W_]+)*")


class Piece(NamedTuple):
    """A part of a text, and whether it matches."""

    text: str
    is_match: bool


class _Shown(NamedTuple):
    start: int
    end: int
    word: int | None


@lru_cache(maxsize=4_000)
def _words_of(text: str) -> tuple[str, ...]:
    """Of one question a hundred texts are read, and of the next one who types on much the same."""
    return tuple(map(intern, words(text)))


@lru_cache(maxsize=20_000)
def _words_of_one(shown: str) -> tuple[str, ...]:
    """The same of what is shown as one word: texts are made of few, and one by one they cost as much as a text."""
    return tuple(words(shown))


class Reader:
    """Reads texts for one question, as each index has heard it."""

    def __init__(self, asked: Sequence[tuple[SearchIndex, Question]]) -> None:
        question = asked[0][1]
        self._question = question
        self._pairs = set(pairwise(question.order))
        self._stop = {at for at, word in enumerate(question.words) if word.is_stop}
        self._stems = {word.stem: at for at, word in enumerate(question.words) if not word.is_stop}
        self._heads = {stem[:_HEAD] for stem in self._stems}
        self._known: dict[str, int | None] = {}
        for index, heard in asked:
            for at, word in enumerate(heard.words):
                for place, _ in word.places:
                    self._known.setdefault(index.lexicon.word(place), at)
        self._known |= {word.text: at for at, word in enumerate(question.words)}
        self._shown: dict[str, int | None] = {}
        self._stem = lru_cache(maxsize=None)(stemmer())

    def in_order(self, text: str) -> float:
        """0..1; a single word has no order, and counts as whole where it stands."""
        read = _words_of(text)
        for word in set(read):
            self._word(word)
        found = [self._known.get(word) for word in read]
        if not self._pairs:
            return float(any(at is not None for at in found))
        return len(self._pairs.intersection(pairwise(found))) / len(self._pairs)

    def pieces(self, text: str) -> list[Piece]:
        """All of `text`. Stop words are marked beside a telling word of the question alone."""
        return _pieces(text, self._marked(list(self._read(text))), 0, len(text))

    def snippet(self, text: str) -> list[Piece]:
        """The `SNIPPET_WORDS` words of `text` with the most of the question, with an ellipsis where it is cut."""
        shown = list(self._read(text))
        marked = self._marked(shown)
        worth = [0.0 if word is None else self._question.words[word].weight for _, _, word in marked]
        best, value, total = 0, 0.0, 0.0
        for at in range(len(marked)):
            total += worth[at] - (worth[at - SNIPPET_WORDS] if at >= SNIPPET_WORDS else 0)
            if total > value + 1e-9:
                best, value = at, total
        first = max(0, min(best - SNIPPET_WORDS // 2, len(marked) - SNIPPET_WORDS)) if value else 0
        first = max(first, best - SNIPPET_WORDS + 1)
        last = min(first + SNIPPET_WORDS, len(marked)) - 1
        start = marked[first].start if first else 0
        end = marked[last].end if last < len(marked) - 1 else len(text)
        cut = [Piece("…", False)]
        return cut * (start > 0) + _pieces(text, marked, start, end) + cut * (end < len(text))

    def matched(self, texts: Sequence[str]) -> list[str]:
        """The words of the question that stand in any of `texts`, in its order."""
        found = {self._word(word) for text in texts for word in set(_words_of(text))}
        return [word.text for at, word in enumerate(self._question.words) if at in found]

    def _read(self, text: str) -> Iterator[_Shown]:
        for match in _SHOWN.finditer(text):
            yield _Shown(match.start(), match.end(), self._shown_word(match[0]))

    def _shown_word(self, shown: str) -> int | None:
        """Which word of the question the first is, of those that are shown as one, that is any."""
        if shown not in self._shown:
            read = (self._word(word) for word in _words_of_one(shown))
            self._shown[shown] = next((at for at in read if at is not None), None)
        return self._shown[shown]

    def _marked(self, shown: list[_Shown]) -> list[_Shown]:
        """Without lonely stop words: a text in which each "the" is marked says nothing."""
        if len(self._stop) == len(self._question.words):
            return shown
        kept = [*shown]
        for at, word in enumerate(shown):
            if word.word in self._stop:
                beside = {other.word for other in shown[max(at - 1, 0) : at + 2]} - self._stop - {None}
                kept[at] = word if beside else word._replace(word=None)
        return kept

    def _word(self, word: str) -> int | None:
        """Which word of the question `word` is, or None."""
        if word in self._known:
            return self._known[word]
        if word[:_HEAD] not in self._heads:
            return None
        return self._known.setdefault(word, self._stems.get(self._stem(word)))


class Found(NamedTuple):
    """What a question found: `scores` of book ids, the best first, and who reads texts for it."""

    scores: dict[int, float]
    reader: Reader

    def score(self, book_id: int, texts: Sequence[str]) -> float:
        """0..1, once its texts were read; what was not found by the index counts by them alone."""
        in_order = max((self.reader.in_order(text) for text in texts), default=0.0)
        return min(1.0, self.scores.get(book_id, 0.0) + IN_ORDER * in_order)


def find(models: Sequence[Model], text: str, limit: int, is_allowed: NDArray[np.bool_] | None = None) -> Found | None:
    """The `limit` best books of `models` for `text`: a learned one, then what was folded into it, which wins where both
    have a book. `is_allowed`, of the books of the first and then of the next: those that may be found, all if None.
    None where the first is of a kind or a release without search."""
    parts = [cast(SearchableModel, model) for model in models if getattr(model, "search_", None) is not None]
    if getattr(models[0], "search_", None) is None:
        return None
    asked: list[tuple[SearchIndex, Question]] = []
    scores: dict[int, float] = {}
    start = 0
    for part in parts:
        index = cast(SearchIndex, part.search_)
        question = index.ask(text, asked[0][1] if asked else None)
        asked.append((index, question))
        end = start + len(part.book_ids)
        may = None if is_allowed is None else is_allowed[start:end]
        places, found = index.rank(question, part.index_, limit, may)
        start = end
        newer = np.fromiter(scores, dtype=np.int64, count=len(scores))
        for book_id in newer[np.isin(newer, part.book_ids)].tolist():
            del scores[book_id]
        scores |= zip(part.book_ids[places].tolist(), found.tolist(), strict=True)
    best = sorted(scores.items(), key=lambda pair: -pair[1])[:limit]
    return Found(dict(best), Reader(asked))


def _pieces(text: str, shown: list[_Shown], start: int, end: int) -> list[Piece]:
    """`text[start:end]`, in as few pieces as can be: matched words with a blank between them are one."""
    marks: list[tuple[int, int]] = []
    for word in shown:
        if word.word is None or word.start < start or word.end > end:
            continue
        if marks and text[marks[-1][1] : word.start].isspace():
            marks[-1] = marks[-1][0], word.end
        else:
            marks.append((word.start, word.end))
    bounds = [start, *(bound for mark in marks for bound in mark), end]
    found = [Piece(text[first:last], at % 2 == 1) for at, (first, last) in enumerate(pairwise(bounds))]
    return [piece for piece in found if piece.text]
