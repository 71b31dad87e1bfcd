"""Text as a shop writes it -> words -> terms: what a content model counts.

    words("in the treetopDon't you know")  ->  ["in", "the", "treetop", "Don't", "you", "know"]
    [term(word) for word in ...]           ->  [None, None, "treetop", None, None, "know"]
    work_key("The Star-Touched  QUEEN!")   ->  "the star touched queen"

A term is a stem, the common part of a word's inflections. Readers see words, never terms.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from bookclub_platform.models._stop_words import STOP_WORDS

# Three lowercase letters first: "treetopDon't" is two sentences that lost their line break, "McDougall" is a name.
_GLUED = re.compile(r"(?<=[a-z]{3})(?=[A-Z])")
# A possessive 's is split off as a one-letter word, so that "Harry's" counts as "Harry".
_WORD = re.compile(r"[^\W_]+(?:'(?![sS]\b)[^\W_]+)*")
# One apostrophe character; no invisible characters: a soft hyphen or a zero-width space would split a word in two.
_PLAIN = {"\N{RIGHT SINGLE QUOTATION MARK}": "'", "\u00ad": "", "\u200b": "", "\ufeff": ""}


def unglued(text: str) -> str:
    """`text` with a space where two sentences were run together, and without invisible characters."""
    for sign, plain in _PLAIN.items():  # str.translate takes twenty times as long for a text with a dash in it
        text = text.replace(sign, plain)
    return _GLUED.sub(" ", text)


def words(text: str) -> list[str]:
    """The words of `text` in order, with their case preserved."""
    return _WORD.findall(unglued(text))


def work_key(title: str) -> str:
    """A key that is equal for titles that differ only in case, spaces and punctuation; the title itself if it has no
    words."""
    return " ".join(word.casefold() for word in words(title)) or title


def term_of() -> Callable[[str], str | None]:
    """A function: word -> term, or None for a word that says nothing about a book's content."""
    from snowballstemmer import stemmer  # type: ignore[import-untyped]  # it ships no types

    stem: Callable[[str], str] = stemmer("english").stemWord

    def term(word: str) -> str | None:
        lower = word.lower()
        is_stop = lower in STOP_WORDS or lower.endswith("n't") or lower.partition("'")[0] in STOP_WORDS
        return None if is_stop or len(lower) < 2 else stem(lower)

    return term
