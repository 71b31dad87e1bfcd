"""Words -> a sorted table that finds a word, the words with a given prefix, and those within a few typos. Only NumPy.

    lexicon = Lexicon.of(["lighthouse", "lightning", "storm"])
    lexicon.find("storm")            ->  2
    lexicon.beginning("light")       ->  range(0, 2)
    lexicon.misspelt("lihgthouse")   ->  [(0, 1)]          the word's place, and how many typos away

It consists of plain arrays, so that it can be saved with a model and memory-mapped. A typo is a letter added, left out,
replaced, or swapped with the next. Candidates for a misspelt word are the words that share enough trigrams (runs of
three letters) with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

# At most this many words, those that share the most trigrams, are compared letter by letter.
_COMPARED = 100
_ONE_TYPO, _TWO_TYPOS = 4, 8  # minimum letters for one or two typos: "cat" with one could be any word
_RUN = 3
_PER_TYPO = 4  # trigrams that a typo can change: a swap is two letters wide
_LONGEST = 64  # letters; anything longer is not a word, and would only cost time


class Lexicon(NamedTuple):
    """k words in UTF-8, ascending by their bytes: word i is `text[ends[i]:ends[i + 1]]`.

    `runs` (r,) are all the trigrams, ascending; trigram j occurs in the words `run_words[run_ends[j]:...]`.
    """

    text: NDArray[np.uint8]
    ends: NDArray[np.int64]
    runs: NDArray[np.int64]
    run_ends: NDArray[np.int64]
    run_words: NDArray[np.int32]

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """The table of `words`, which must be distinct and sorted by code point."""
        text = np.frombuffer("".join(words).encode(), dtype=np.uint8)
        ends = np.concatenate([[0], np.cumsum([len(word.encode()) for word in words], dtype=np.int64)])
        padded = "".join([f"  {word} " for word in words])
        n_runs = np.array([len(word) + 1 for word in words], dtype=np.int64)
        owners = np.repeat(np.arange(len(words)), n_runs)
        # A word of n letters is padded to n + 3, and n + 1 trigrams begin in it.
        begins = np.arange(len(owners)) + (_RUN - 1) * owners
        pairs = np.unique(np.stack([_codes(padded)[begins], owners]), axis=1) if len(words) else np.zeros((2, 0), int)
        runs, first = np.unique(pairs[0], return_index=True)
        run_ends = np.append(first, pairs.shape[1]).astype(np.int64)
        return cls(text, ends.astype(np.int64), runs.astype(np.int64), run_ends, pairs[1].astype(np.int32))

    @property
    def n_words(self) -> int:
        return len(self.ends) - 1

    def word(self, place: int) -> str:
        return self._bytes(place).decode(errors="replace")

    def _bytes(self, place: int) -> bytes:
        return self.text[self.ends[place] : self.ends[place + 1]].tobytes()

    def find(self, word: str) -> int | None:
        """The place of `word`, None if it is not in the table."""
        sought = word.encode(errors="replace")
        place = bisect_left(range(self.n_words), sought, key=self._bytes)
        return place if place < self.n_words and self._bytes(place) == sought else None

    def beginning(self, prefix: str) -> range:
        """The places of the words that begin with `prefix`."""
        sought = prefix.encode(errors="replace")
        first = bisect_left(range(self.n_words), sought, key=self._bytes)
        return range(first, bisect_left(range(self.n_words), sought + b"\xff", lo=first, key=self._bytes))

    def misspelt(self, word: str) -> list[tuple[int, int]]:
        """(place, typos) of the words that `word` may be a misspelling of, fewest typos first: one typo in words of at
        least four letters, two in those of eight. Empty for a word with a digit: another number is another thing."""
        most = (len(word) >= _ONE_TYPO) + (len(word) >= _TWO_TYPOS)
        if not most or len(word) > _LONGEST or any(letter.isdigit() for letter in word):
            return []
        near = [(place, typos(word, self.word(place), most)) for place in self._sharing(word, most)]
        return sorted(((place, n) for place, n in near if n <= most), key=lambda found: (found[1], found[0]))

    def _sharing(self, word: str, most: int) -> list[int]:
        """The places of the words that share the most trigrams with `word`."""
        sought = np.unique(_codes(f"  {word} "))
        known = np.searchsorted(self.runs, sought)[np.isin(sought, self.runs)]
        lists = [self.run_words[self.run_ends[run] : self.run_ends[run + 1]] for run in known.tolist()]
        if not lists:
            return []
        places, shared = np.unique(np.concatenate(lists), return_counts=True)
        lengths = self.ends[places + 1] - self.ends[places]
        is_near = (shared >= len(sought) - _PER_TYPO * most) & (np.abs(lengths - len(word.encode())) <= 3 * most)
        places, alike = places[is_near], (2 * shared / (len(sought) + lengths + 1))[is_near]
        return [int(place) for place in places[np.argsort(-alike, kind="stable")[:_COMPARED]]]

    def fault(self) -> str | None:
        """Why these arrays cannot be read, or None."""
        if not _ascends(self.ends, len(self.text)):
            return "bounds of words that do not ascend"
        if not _ascends(self.run_ends, len(self.run_words)) or len(self.run_ends) != len(self.runs) + 1:
            return "bounds of runs of letters that do not ascend"
        if len(self.run_words) and not (self.run_words.min() >= 0 and self.run_words.max() < self.n_words):
            return "runs of letters of words that there are not"
        return None


def typos(written: str, meant: str, most: int) -> int:
    """The number of letters added, left out, replaced, or swapped with the next; `most` + 1 if it is larger."""
    if abs(len(written) - len(meant)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(meant) + 1))
    for i, letter in enumerate(written, 1):
        row = [i]
        for j, other in enumerate(meant, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == meant[j - 2] and written[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return last[-1]


def _codes(padded: str) -> NDArray[np.int64]:
    """The code of the trigram at each position except the last two; a code point has 21 bits."""
    letters = np.frombuffer(padded.encode("utf-32-le"), dtype=np.uint32).astype(np.int64)
    return np.asarray(letters[:-2] << 42 | letters[1:-1] << 21 | letters[2:])


def _ascends(ends: NDArray[np.int64], last: int) -> bool:
    return len(ends) > 0 and ends[0] == 0 and ends[-1] == last and not np.any(np.diff(ends) < 0)
