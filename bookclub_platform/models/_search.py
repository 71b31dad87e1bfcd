"""Free text -> books, best first: by the words of their titles, and by the champion's TF-IDF space. Needs only NumPy.

    index = SearchIndex.of(titles, vocabulary, idf)       when a model is fitted; plain arrays, saved with it
    question = index.ask("the lihgthouse keeper")
    places, scores = index.rank(question, model.index_, limit=100)

A book's score combines how much of the question the book covers, how much of its title the question covers, the cosine
of the question and the book in the model's space, and (`_passages`, if the book's text is available) how much of the
question occurs in the text in order. Significant words are weighted by rarity. A word that no title has may be an
inflected form of one, a typo, or, as the last word of a question, a prefix of one. benchmarks/search.py measures it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models import _text
from bookclub_platform.models._index import Compressed, InvertedIndex
from bookclub_platform.models._lexicon import Lexicon

MAX_WORDS = 32
"""Different words of a question that are looked for: of a longer one the first."""

# The weight of each part of the score; the sum is 1.
COVERED, OF_TITLE, COSINE, IN_ORDER = 0.35, 0.25, 0.15, 0.25
_IN_TEXT = 0.7  # for a word in the text; a word in the title counts 1
_STOP_WEIGHT = 0.5  # of "the"; a word that half of all books have weighs 1.7
_FORM, _TYPO, _BEGINNING = 0.9, 0.8, 0.7  # how near the word found is to the word in the question
_BEGINNINGS = 200  # words that a prefix may stand for: those in the most titles

_WORD = re.compile(r"[^\W_]+")
_POSSESSIVE = re.compile(r"'[sS]\b")
_ACCENTS = re.compile("[\u0300-\u036f]+")

Stem = Callable[[str], str]


def plain(text: str) -> str:
    """`text` normalised for search: lowercase, without accents, apostrophes and possessive s."""
    text = _text.unglued(text)
    if "'" in text:
        text = _POSSESSIVE.sub("", text).replace("'", "")
    if text.isascii():
        return text.lower()
    return _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))


def words(text: str) -> list[str]:
    """The words of `text` in order, normalised for search."""
    return _WORD.findall(plain(text))


class Word(NamedTuple):
    """A word of a question, and what it may stand for.

    Attributes:
        weight: how significant it is.
        is_stop: whether it means nothing by itself, like "the".
        stem: what its inflections have in common.
        places: (place in the lexicon, nearness 0..1) of the words that it may stand for.
        columns: column of the model's space -> nearness.
    """

    text: str
    weight: float
    is_stop: bool
    stem: str
    places: list[tuple[int, float]]
    columns: dict[int, float]

    def beside(self, other: Word) -> Word:
        """This word with what `other`, the same word looked up in another index, knows about the space."""
        is_known = bool(other.places)
        return self._replace(
            weight=other.weight if is_known else self.weight,
            is_stop=other.is_stop or self.is_stop,
            columns=other.columns | self.columns,
        )


class Question(NamedTuple):
    """`words` are distinct; `order` holds their indices in the order of the question, with repetitions."""

    words: list[Word]
    order: list[int]


class SearchableModel(Protocol):
    """A model that can be searched with free text: `index_` and `search_` cover the books `book_ids`."""

    book_ids: NDArray[np.int64]
    index_: InvertedIndex
    search_: SearchIndex | None


class SearchIndex(NamedTuple):
    """The words of n titles and of a model's terms.

    Attributes:
        lexicon: the w words of titles, and the model's terms as readers write them.
        stems: the s stems of these.
        stem_of: (w,) the stem of each word.
        stem_ends, stem_words: the words of stem i are `stem_words[stem_ends[i]:stem_ends[i + 1]]`.
        columns: (s,) the model's column for a stem, -1 for none.
        weights: (w,) how significant a word is; below 1 for stop words.
        book_ends, books: the books (places) with word i in the title are `books[book_ends[i]:book_ends[i + 1]]`.
        title_weights: (n,) the sum of the weights of a title's words.
    """

    lexicon: Lexicon
    stems: Lexicon
    stem_of: NDArray[np.int32]
    stem_ends: NDArray[np.int64]
    stem_words: NDArray[np.int32]
    columns: NDArray[np.int32]
    weights: NDArray[np.float32]
    book_ends: NDArray[np.int64]
    books: NDArray[np.int32]
    title_weights: NDArray[np.float32]

    @classmethod
    def of(cls, titles: Sequence[str], vocabulary: Sequence[str], idf: NDArray[np.float32]) -> Self:
        """The index of `titles`, for a model whose column i is the term `vocabulary[i]` with the rarity `idf[i]`."""
        stem = stemmer()
        of_terms = [words(term) for term in vocabulary]
        column_of = {stem(found[0]): at for at, found in reversed(list(enumerate(of_terms))) if len(found) == 1}
        return cls._of([words(title) for title in titles], of_terms, idf, column_of.get)

    def fold(self, titles: Sequence[str], idf: NDArray[np.float32]) -> Self:
        """The index of other `titles` in the same space. It holds only their words: it is queried after this one, and
        does not repeat its terms."""

        def column_of(stem: str) -> int | None:
            at = self.stems.find(stem)
            return None if at is None or self.columns[at] < 0 else int(self.columns[at])

        return self._of([words(title) for title in titles], [], idf, column_of)

    def titles(self) -> list[str]:
        """(n,): the words of each title, in no order; an index made from them equals one made from the titles."""
        order = np.argsort(self.books, kind="stable")
        found = np.repeat(np.arange(self.lexicon.n_words), np.diff(self.book_ends))[order]
        bounds = np.searchsorted(self.books[order], np.arange(len(self.title_weights) + 1))
        return [
            " ".join(self.lexicon.word(place) for place in found[first:last].tolist())
            for first, last in pairwise(bounds.tolist())
        ]

    @classmethod
    def _of(
        cls,
        titles: Sequence[list[str]],
        of_terms: Sequence[list[str]],
        idf: NDArray[np.float32],
        column_of: Callable[[str], int | None],
    ) -> Self:
        stem, is_stop = stemmer(), stop_word_of()
        of_titles = [list(dict.fromkeys(found)) for found in titles]
        all_words = sorted({word for found in [*of_titles, *of_terms] for word in found})
        place = {word: at for at, word in enumerate(all_words)}
        stem_names = [stem(word) for word in all_words]
        stems = sorted(set(stem_names))
        stem_place = {name: at for at, name in enumerate(stems)}
        stem_of = np.array([stem_place[name] for name in stem_names], dtype=np.int32)
        known = [column_of(name) for name in stems]
        columns = np.array([-1 if column is None else column for column in known], dtype=np.int32)
        entries = np.array([place[word] for found in of_titles for word in found], dtype=np.int64)
        owners = np.repeat(np.arange(len(titles)), [len(found) for found in of_titles])
        counts = np.bincount(entries, minlength=len(all_words))
        weights = np.log((1 + len(titles)) / (1 + counts)) + 1
        in_model = columns[stem_of] >= 0
        weights[in_model] = idf[columns[stem_of][in_model]]
        weights[[at for at, word in enumerate(all_words) if is_stop(word)]] = _STOP_WEIGHT
        by_word = np.argsort(entries, kind="stable")
        return cls(
            Lexicon.of(all_words),
            Lexicon.of(stems),
            stem_of,
            _ends(np.bincount(stem_of, minlength=len(stems))),
            np.argsort(stem_of, kind="stable").astype(np.int32),
            columns,
            weights.astype(np.float32),
            _ends(counts),
            owners[by_word].astype(np.int32),
            np.bincount(owners, weights=weights[entries], minlength=len(titles)).astype(np.float32),
        )

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays of this index, by the names in `SEARCH_ARRAYS`."""
        parts = self._asdict()
        tables = {f"{name}.{part}": array for name in _TABLES for part, array in parts.pop(name)._asdict().items()}
        return {f"search.{name}": array for name, array in (tables | parts).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """The index from what `arrays` returned, not validated: see `fault`."""
        lexicon, stems = (Lexicon(*(arrays[f"search.{name}.{part}"] for part in Lexicon._fields)) for name in _TABLES)
        return cls(lexicon, stems, *(arrays[f"search.{name}"] for name in cls._fields[len(_TABLES) :]))

    def ask(self, text: str, before: Question | None = None) -> Question:
        """What the words of `text` may stand for in this index.

        Args:
            before: what they stand for in the index that this one is a `fold` of: its columns are valid here too.
        """
        asked = words(text)
        different = list(dict.fromkeys(asked))[:MAX_WORDS]
        at = {word: number for number, word in enumerate(different)}
        stem = stemmer()
        is_open = bool(text) and bool(_WORD.match(text[-1]))  # the user may still be typing the last word
        found = [self._meaning(word, stem(word), is_open and word == asked[-1]) for word in different]
        if before is not None:
            found = [word.beside(other) for word, other in zip(found, before.words, strict=True)]
        return Question(found, [at[word] for word in asked if word in at])

    def _meaning(self, word: str, stem: str, is_last: bool) -> Word:
        place, at = self.lexicon.find(word), self.stems.find(stem)
        near: dict[int, float] = {}
        is_stop = place is not None and bool(self.weights[place] < 1)
        if at is not None and not is_stop:
            near |= dict.fromkeys(self.stem_words[self.stem_ends[at] : self.stem_ends[at + 1]].tolist(), _FORM)
        if place is not None:
            near[place] = 1.0
        in_title = any(self.book_ends[found + 1] > self.book_ends[found] for found in near)
        if is_last and not is_stop:
            self._add_beginnings(near, word)
        if not in_title:
            for found, typos in self.lexicon.misspelt(word):
                # A typo is almost certain if the lexicon does not have the word; if it does, a typo is only a guess.
                nearness = (_TYPO if place is None else _TYPO / 2) * (1 - typos / (2 * len(word)))
                near[found] = max(near.get(found, 0.0), nearness)
        columns: dict[int, float] = {}
        for found, nearness in near.items():
            column = int(self.columns[self.stem_of[found]])
            if column >= 0:
                columns[column] = max(columns.get(column, 0.0), nearness)
        if at is not None and self.columns[at] >= 0:
            columns[int(self.columns[at])] = 1.0
        return Word(word, self._weight(near), is_stop, stem, sorted(near.items(), key=lambda pair: pair[1]), columns)

    def _add_beginnings(self, near: dict[int, float], word: str) -> None:
        found = self.lexicon.beginning(word)
        places = np.arange(found.start, found.stop)
        counts = np.diff(self.book_ends[found.start : found.stop + 1])
        for place in places[np.argsort(-counts, kind="stable")[:_BEGINNINGS]].tolist():
            length = int(self.lexicon.ends[place + 1] - self.lexicon.ends[place])
            near[place] = max(near.get(place, 0.0), _BEGINNING * (0.5 + 0.5 * len(word.encode()) / length))

    def _weight(self, near: dict[int, float]) -> float:
        """The weight of the nearest word that it may stand for; for an unknown word, the weight of the rarest."""
        if not near:
            return float(np.log(1 + len(self.title_weights)) + 1)
        best = max(near.values())
        return max(float(self.weights[place]) for place, nearness in near.items() if nearness == best)

    def rank(
        self, question: Question, space: InvertedIndex, limit: int, is_allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Places and scores of the `limit` best of all books that have a word of the question, best first; ties go to
        the lower place. Stop words find books only if the question has no other words. `space`: the vectors of the same
        books; `is_allowed` (n,): the books that may be found, all if None.
        """
        n_books = len(self.title_weights)
        covered, of_title, cosine = (np.zeros(n_books, np.float32) for _ in range(3))
        asked = [word for word in question.words if word.places or word.columns]
        total = sum(word.weight for word in question.words)
        length = float(np.sqrt(sum(word.weight**2 for word in question.words if word.columns))) or 1.0
        has_telling = any(not word.is_stop for word in asked)
        for word in sorted(asked, key=lambda word: word.is_stop):
            here = self._titles(word)
            of_title += np.float32(word.weight) * here
            for column, nearness in word.columns.items():
                books, values = _row(space.by_column, column)
                cosine[books] += values * np.float32(word.weight * nearness)
                here[books] = np.maximum(here[books], np.float32(_IN_TEXT * nearness))
            if word.is_stop and has_telling:
                here[covered == 0] = 0
            covered += np.float32(word.weight) * here
        found = np.flatnonzero(covered if is_allowed is None else is_allowed & (covered > 0))
        weights = np.maximum(self.title_weights[found], np.float32(_STOP_WEIGHT))
        scores = COVERED * covered[found] / total
        scores += OF_TITLE * of_title[found] ** 2 / (total * np.maximum(weights, of_title[found]))
        scores += COSINE * np.minimum(cosine[found] / length, 1)
        if limit < len(found):
            best = scores >= np.partition(scores, -limit)[-limit]
            found, scores = found[best], scores[best]
        order = np.argsort(-scores, kind="stable")[:limit]
        return found[order], scores[order]

    def _titles(self, word: Word) -> NDArray[np.float32]:
        """(n,): how near the nearest word of each title is to `word`, 0 if none is."""
        here = np.zeros(len(self.title_weights), np.float32)
        for place, nearness in word.places:  # ascending by nearness: the nearest wins
            here[self.books[self.book_ends[place] : self.book_ends[place + 1]]] = nearness
        return here

    def fault(self, n_books: int, n_columns: int) -> str | None:
        """Why these arrays do not fit a model of that size, or None."""
        n_words, n_stems = self.lexicon.n_words, self.stems.n_words
        fault = self.lexicon.fault() or self.stems.fault()
        if fault:
            return fault
        sizes = [len(self.stem_of), len(self.stem_words), len(self.weights), len(self.book_ends) - 1]
        if sizes != [n_words] * 4 or [len(self.stem_ends) - 1, len(self.columns)] != [n_stems] * 2:
            return f"search arrays of other sizes than its {n_words} words and {n_stems} stems"
        if len(self.title_weights) != n_books:
            return f"{len(self.title_weights)} titles for {n_books} books"
        inside = [(self.stem_of, 0, n_stems), (self.stem_words, 0, n_words), (self.columns, -1, n_columns)]
        if any(len(array) and not low <= array.min() <= array.max() < high for array, low, high in inside):
            return "words of search that lead nowhere"
        if len(self.books) and not 0 <= self.books.min() <= self.books.max() < n_books:
            return "titles of books that there are not"
        ends = [(self.stem_ends, len(self.stem_words)), (self.book_ends, len(self.books))]
        if any(bounds[0] != 0 or bounds[-1] != last or np.any(np.diff(bounds) < 0) for bounds, last in ends):
            return "bounds of search that do not ascend"
        is_weight = [np.all(np.isfinite(array)) and np.all(array >= 0) for array in (self.weights, self.title_weights)]
        return None if all(is_weight) else "weights of search that are no numbers of 0 or more"


_LEXICON_TYPES: tuple[type[np.generic], ...] = (np.uint8, np.int64, np.int64, np.int64, np.int32)
_TABLES = ("lexicon", "stems")
SEARCH_ARRAYS: dict[str, type[np.generic]] = {
    **{
        f"search.{table}.{part}": dtype
        for table in _TABLES
        for part, dtype in zip(Lexicon._fields, _LEXICON_TYPES, strict=True)
    },
    "search.stem_of": np.int32,
    "search.stem_ends": np.int64,
    "search.stem_words": np.int32,
    "search.columns": np.int32,
    "search.weights": np.float32,
    "search.book_ends": np.int64,
    "search.books": np.int32,
    "search.title_weights": np.float32,
}
"""The arrays of a SearchIndex, as they are saved, and their types."""


def stemmer() -> Stem:
    """A function: word -> its stem."""
    from snowballstemmer import stemmer as snowball  # type: ignore[import-untyped]  # it ships no types

    stem: Stem = snowball("english").stemWord
    return stem


def stop_word_of() -> Callable[[str], bool]:
    """A function: word -> whether it means nothing by itself. Numbers and single non-ASCII letters do not qualify."""
    term = _text.term_of()
    return lambda word: term(word) is None and (len(word) > 1 or (word.isascii() and word.isalpha()))


def _ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _row(matrix: Compressed, row: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part], matrix.data[part]
