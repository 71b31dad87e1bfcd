"""Texts of books -> counts, which are all that fitting needs, wherever they were made.

    counted = count(rows, model.words, min_df=2)        here; bookclub_platform/spark/ counts the same on many machines

Counting one book needs only that book, and document frequencies add up over any partition of the catalogue. The later
steps (weights, lists) start from a `Counted`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models import _text
from bookclub_platform.models._contract import BookText
from bookclub_platform.models._identity import prints_of

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Words = Callable[[BookText], list[str]]


class Counted(NamedTuple):
    """The counts of n books, ascending by id.

    Attributes:
        book_ids: (n,)
        titles, categories, category_names: n of each; a category is its slug.
        prints, title_prints: (n,) fingerprints of the texts, and of the titles as works.
        terms: (n, t) float32, canonical: how often each term occurs in each book, for the terms in enough books.
        term_names: the most frequent word of each term.
        encoded: (n, 384) sentence embeddings, None if the model uses none.
    """

    book_ids: NDArray[np.int64]
    titles: list[str]
    categories: list[str]
    category_names: list[str]
    prints: NDArray[np.int64]
    title_prints: NDArray[np.int64]
    terms: csr_matrix
    term_names: list[str]
    encoded: NDArray[np.float32] | None = None


def count(rows: Sequence[BookText], words: Words, min_df: int) -> Counted:
    """Count `rows`, in any order, with the terms that occur in at least `min_df` of them."""
    rows = sorted(rows, key=lambda row: row.id)
    terms, names = _count_terms(rows, words, min_df)
    return Counted(
        np.array([row.id for row in rows], dtype=np.int64),
        [row.title for row in rows],
        [row.category for row in rows],
        [row.category_name for row in rows],
        *prints_of(rows),
        terms,
        names,
    )


def _count_terms(rows: Sequence[BookText], words: Words, min_df: int) -> tuple[csr_matrix, list[str]]:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer=words, dtype=np.float32)
    try:
        word_counts = counter.fit_transform(rows)
    except ValueError:  # no word at all
        return csr_matrix((len(rows), 0), dtype=np.float32), []
    found = counter.get_feature_names_out()
    term = _text.term_of()
    word_terms = [term(word) for word in found]
    place = {stem: at for at, stem in enumerate(sorted({stem for stem in word_terms if stem is not None}))}
    pairs = [(at, place[stem]) for at, stem in enumerate(word_terms) if stem is not None]
    word_at, term_at = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    folding = csr_matrix((np.ones(len(pairs), np.float32), (word_at, term_at)), shape=(len(found), len(place)))
    counts = (word_counts @ folding).tocsc()
    kept = np.flatnonzero(counts.getnnz(axis=0) >= min_df)
    # Rarest first: the last word of a term wins, so each keeps its most frequent word; a tie goes to the lowercase one.
    order = np.argsort(np.asarray(word_counts.sum(axis=0)).ravel()[word_at], kind="stable")
    shown = {int(term_at[at]): str(found[word_at[at]]) for at in order}
    return counts[:, kept].tocsr(), [shown[at] for at in kept.tolist()]
