"""A number and a seed -> that many made-up books of about 60 words, with a vocabulary that grows like real text's.

    for book in made_up(1_000_000, seed=1): ...          BookText

Words follow Zipf's law. A book belongs to a shelf (one of 50 categories) and to a subject (shared by about 50 books).
Two words in five come from its subject, one in ten from its shelf, the rest from the general vocabulary. So each book
has some near neighbours, many far ones, and very frequent words in common with nearly all, as in a real catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models import BookText

SHELVES = 50
BOOKS_OF_A_SUBJECT = 50
SUBJECT_WORDS = 80
SHELF_WORDS = 400
WORDS = 57  # with the three of the title, 60
_BATCH = 20_000
_ONSETS = [
    "b",
    "br",
    "c",
    "cr",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "pr",
    "qu",
    "r",
    "s",
    "sh",
    "sl",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "ea", "ou"]
_CODAS = [
    "b",
    "ck",
    "d",
    "f",
    "g",
    "l",
    "ll",
    "m",
    "n",
    "nd",
    "nt",
    "p",
    "r",
    "rd",
    "rk",
    "rm",
    "s",
    "sk",
    "st",
    "t",
    "x",
]


def made_up(books: int, seed: int = 1) -> Iterator[BookText]:
    """`books` books with ids from 1; the same for the same seed."""
    random = np.random.default_rng(seed)
    # Heaps' law with the exponent of English prose: ten times the text has four times the words.
    words = _words(int(30 * (books * 60.0) ** 0.6))
    subjects = max(1, books // BOOKS_OF_A_SUBJECT)
    # A subject's words are not among the most common ones: their ranks are spread evenly on a logarithmic scale.
    of_subject = _ranks(random, (subjects, SUBJECT_WORDS), 300, len(words))
    of_shelf = _ranks(random, (SHELVES, SHELF_WORDS), 100, min(20_000, len(words)))
    shelf_of = random.integers(0, SHELVES, subjects)
    cumulative = np.cumsum(1 / (np.arange(len(words)) + 2.7))
    for start in range(0, books, _BATCH):
        n = min(_BATCH, books - start)
        subject = random.integers(0, subjects, n)
        source = random.random((n, WORDS))
        general = np.searchsorted(cumulative, random.random((n, WORDS)) * cumulative[-1])
        own = of_subject[subject[:, None], _skewed(random, (n, WORDS), SUBJECT_WORDS)]
        shelf = of_shelf[shelf_of[subject][:, None], _skewed(random, (n, WORDS), SHELF_WORDS)]
        chosen = np.where(source < 0.4, own, np.where(source < 0.5, shelf, general))
        titles = np.column_stack([own[:, 0], general[:, 1], own[:, 2]])
        for at in range(n):
            category = f"shelf-{shelf_of[subject[at]]}"
            title = " ".join(words[rank] for rank in titles[at])
            text = " ".join([words[rank] for rank in chosen[at]])
            yield BookText(start + at + 1, title.title(), text, category, category.replace("-", " ").title())


def _words(n: int) -> list[str]:
    """n different words, short ones first, because frequent words are short."""
    syllables = [onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in _CODAS]
    random = np.random.default_rng(0)
    random.shuffle(syllables)
    twos = (first + second for first in syllables for second in syllables)
    words = dict.fromkeys(syllables)
    for word in twos:
        if len(words) >= n:
            break
        words[word] = None
    return list(words)[:n]


def _ranks(random: np.random.Generator, shape: tuple[int, int], lowest: int, highest: int) -> NDArray[np.int64]:
    return np.exp(random.uniform(np.log(lowest), np.log(highest), shape)).astype(np.int64)


def _skewed(random: np.random.Generator, shape: tuple[int, int], n: int) -> NDArray[np.int64]:
    """Places below n; small ones are more frequent."""
    return (random.random(shape) ** 2 * n).astype(np.int64)
