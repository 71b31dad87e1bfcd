"""A question and a text -> how much of the question the text has in order, and the text in pieces with matches marked.

    found = find([model], "the lihgthouse keeper", limit=2000)
    found.scores               ->  {17: 0.41, 3: 0.2, ...}      by the model's index alone, the best first
    found.score(17, [title, description])      ->  0.62         including the book's texts
    reader = Reader([(index, question)])
    reader.in_order(text)      ->  0.75: three of four pairs of neighbouring words of the question are neighbours here
    reader.pieces(title)       ->  [Piece("The ", False), Piece("Lighthouse", True)]
    reader.snippet(text)       ->  the same for the part of a text that matches most of the question

Pieces are plain text: whoever displays them must escape them.
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
_HEAD = 3  # first letters that a word shares with its inflected forms
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
    """Cached: a question reads a hundred texts, and as the user types on, the next question reads mostly the same."""
    return tuple(map(intern, words(text)))


@lru_cache(maxsize=20_000)
def _words_of_one(shown: str) -> tuple[str, ...]:
    """The same for what is displayed as one word. Texts repeat few words, and uncached each costs as much as a text."""
    return tuple(words(shown))


class Reader:
    """Reads texts for one question, as each index has understood it."""

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
        """0..1. A single word has no order: it scores 1 if it occurs in `text`."""
        read = _words_of(text)
        for word in set(read):
            self._word(word)
        found = [self._known.get(word) for word in read]
        if not self._pairs:
            return float(any(at is not None for at in found))
        return len(self._pairs.intersection(pairwise(found))) / len(self._pairs)

    def pieces(self, text: str) -> list[Piece]:
        """All of `text`. Stop words are marked only next to a significant word of the question."""
        return _pieces(text, self._marked(list(self._read(text))), 0, len(text))

    def snippet(self, text: str) -> list[Piece]:
        """The `SNIPPET_WORDS` words of `text` that match most of the question, with an ellipsis where it is cut."""
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
        """The words of the question that occur in any of `texts`, in the order of the question."""
        found = {self._word(word) for text in texts for word in set(_words_of(text))}
        return [word.text for at, word in enumerate(self._question.words) if at in found]

    def _read(self, text: str) -> Iterator[_Shown]:
        for match in _SHOWN.finditer(text):
            yield _Shown(match.start(), match.end(), self._shown_word(match[0]))

    def _shown_word(self, shown: str) -> int | None:
        """Which word of the question the first matching part of `shown` is, or None."""
        if shown not in self._shown:
            read = (self._word(word) for word in _words_of_one(shown))
            self._shown[shown] = next((at for at in read if at is not None), None)
        return self._shown[shown]

    def _marked(self, shown: list[_Shown]) -> list[_Shown]:
        """Unmark isolated stop words: a text with every "the" marked tells the reader nothing."""
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
    """The result of a question: book id -> score, the best first, and the reader of texts for it."""

    scores: dict[int, float]
    reader: Reader

    def score(self, book_id: int, texts: Sequence[str]) -> float:
        """0..1, including the book's texts; a book that the index did not find is scored by its texts alone."""
        in_order = max((self.reader.in_order(text) for text in texts), default=0.0)
        return min(1.0, self.scores.get(book_id, 0.0) + IN_ORDER * in_order)


def find(models: Sequence[Model], text: str, limit: int, is_allowed: NDArray[np.bool_] | None = None) -> Found | None:
    """The `limit` best books of `models` for `text`. `models` are a fitted model and the models folded from it; if two
    have a book, the later one wins. `is_allowed` marks the books that may be found, those of the first model and then
    those of the next; all if None. Returns None if the first model is of a kind or a release without search."""
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
    """`text[start:end]` in as few pieces as possible: matched words with only blanks between them form one piece."""
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
