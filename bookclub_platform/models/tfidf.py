"""Titles, descriptions and categories -> TF-IDF unit vectors -> the nearest books, and why.

    python -c "from bookclub_platform.models import *; print(load_model('FOLDER').recommend(BOOK_ID, limit=10))"

A book's vector has two parts. The first holds the terms of its title, description and category name, counted together,
damped by a logarithm and weighted by rarity. The second is one entry for its category; rarer categories weigh more. A
placeholder category is left out of both. The cosine of these vectors is the word score. The embedding captures what two
books are about beyond the words that they share: its cosine, not below 0, makes up `embedding_weight` of the score. The
default embedding is latent semantic analysis, the 50 strongest directions of the catalogue itself, in which words that
occur next to the same words are similar. It raises nDCG@10 from 0.336 / 0.204 to 0.36 / 0.23 (all / other authors; 40
to 60 directions and weights of 0.2 to 0.4 perform the same). The weights lie in the middle of plateaus, as
benchmarks/ABLATION.md shows; `python benchmarks/ablation.py` writes it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.errors import ModelError
from bookclub_platform.models import _lsa, _parameters, _text, _tfidf_artifact
from bookclub_platform.models._contract import BookText, Reason, Recommendation
from bookclub_platform.models._counts import Counted, count
from bookclub_platform.models._embedding import centred, encoded
from bookclub_platform.models._fold import unit_index
from bookclub_platform.models._identity import prints_of, works_of
from bookclub_platform.models._index import Compressed, InvertedIndex, Shared, nearest
from bookclub_platform.models._lists import Lists
from bookclub_platform.models._nearest import nearest_lists
from bookclub_platform.models._parameters import checked
from bookclub_platform.models._reasons import REASONS, told_reasons
from bookclub_platform.models._search import SearchIndex
from bookclub_platform.models._segments import Segments, segments_of
from bookclub_platform.models._stems import Stems
from bookclub_platform.models._whole_lists import UP_TO, senses_of, whole_lists

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

UNKNOWN_CATEGORIES = ("default", "add-a-comment", "unsorted", "choose-a-category")  # the last two are the sandbox's


class Tfidf:
    """Content-based neighbours by the cosine of weighted terms.

    Args:
        title_weight: how many times a word of the title counts.
        category_name_weight: how many times a word of the category's name counts.
        category_weight: length of the category part of a vector, for a category of average rarity; the text has 1.
        min_df: terms in fewer books than this are left out.
        unknown_categories: slugs that a shop gives to books it has not sorted.
        embedding: `lsa`, which is learned from this catalogue; `minilm`, a small sentence embedding, for which fitting
            needs the extra `embedding`; or `none`.
        embedding_weight: the embedding's part of the score, 0..1.
        embedding_up_to: with more books than this there is no embedding, since each request would have to scan all.

    Attributes:
        book_ids: (n,) int64, ascending.
        works_: (n,) int32, equal for books that are the same work.
        prints_: (n,) int64, the fingerprint of each book's text at fit time: core/stock.py.
        title_prints_: (n,) int64, the fingerprint of the part of a title that identifies the work.
        vocabulary_: what each of the m columns stands for, as readers would write it: terms, then categories.
        idf_: (m,) float32, the rarity of each column.
        index_: the vectors.
        embedding_: (n, d) float32 of length 1 (or 0 for a book without text), centred; None without an embedding.
        embedding_mean_: (d,) float32, the mean that was subtracted to centre the embeddings.
        embedding_components_: (d, m) float32 for `lsa`: vectors @ their transpose are the embedding before centring.
        lists_: the precomputed nearest of each book; None for very many books with an embedding, and in a folded model.
        search_: the words of titles and terms, for free-text search; None in a model of an earlier release.
        segments_: groups of books on similar subjects; None without an embedding, and in a model of an earlier release.
        figures_: how `nearest_lists` made the lists, for the log: seconds, recall@10 against exact; else empty, and
            empty in a loaded model.
    """

    name = "tfidf_model"

    book_ids: NDArray[np.int64]
    works_: NDArray[np.int32]
    prints_: NDArray[np.int64]
    title_prints_: NDArray[np.int64]
    vocabulary_: Sequence[str]
    n_categories_: int
    idf_: NDArray[np.float32]
    index_: InvertedIndex
    embedding_: NDArray[np.float32] | None
    embedding_mean_: NDArray[np.float32] | None
    embedding_components_: NDArray[np.float32] | None
    lists_: Lists | None
    search_: SearchIndex | None
    segments_: Segments | None
    figures_: dict[str, float]

    @checked
    def __init__(
        self,
        *,
        title_weight: _parameters.WordWeight = 2,
        category_name_weight: _parameters.WordWeight = 1,
        category_weight: _parameters.CategoryWeight = 0.3,
        min_df: _parameters.FewestBooks = 2,
        unknown_categories: _parameters.Slugs = UNKNOWN_CATEGORIES,
        embedding: _parameters.Embedding = "lsa",
        embedding_weight: _parameters.Share = 0.25,
        embedding_up_to: _parameters.Books = 20_000,
    ) -> None:
        self.title_weight = title_weight
        self.category_name_weight = category_name_weight
        self.category_weight = category_weight
        self.min_df = min_df
        self.unknown_categories = tuple(unknown_categories)
        self.embedding = embedding
        self.embedding_weight = embedding_weight
        self.embedding_up_to = embedding_up_to

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments of the constructor, by name."""
        return {
            "title_weight": self.title_weight,
            "category_name_weight": self.category_name_weight,
            "category_weight": self.category_weight,
            "min_df": self.min_df,
            "unknown_categories": list(self.unknown_categories),
            "embedding": self.embedding,
            "embedding_weight": self.embedding_weight,
            "embedding_up_to": self.embedding_up_to,
        }

    @property
    def counts(self) -> dict[str, int]:
        """The sizes of what was learned."""
        return {
            "books": len(self.book_ids),
            "terms": len(self.vocabulary_) - self.n_categories_,
            "categories": self.n_categories_,
            "entries": len(self.index_.by_book.data),
        }

    @property
    def nbytes(self) -> int:
        """See `Model.nbytes`."""
        return _tfidf_artifact.nbytes(self)

    def fit(self, rows: Sequence[BookText]) -> Self:
        """Learn from `rows`, in any order; ids must be distinct.

        Raises:
            ModelError: no word occurs in at least `min_df` of the books.
            ConfigurationError: an embedding is chosen, and its extra is not installed.
        """
        return self.learn(self.count(rows))

    def count(self, rows: Sequence[BookText]) -> Counted:
        """What `learn` needs to know about `rows`: see `_counts`."""
        counted = count(rows, self.words, self.min_df)
        if not self.is_encoded(len(rows)):
            return counted
        return counted._replace(encoded=encoded(sorted(rows, key=lambda row: row.id)))

    def learn(self, counted: Counted) -> Self:
        """Learn from counts, made here or elsewhere with this model's `words` and `min_df`.

        Raises:
            ModelError: no word occurs in at least `min_df` of the books.
        """
        from scipy.sparse import hstack
        from sklearn.preprocessing import normalize

        n = len(counted.book_ids)
        if not counted.term_names:
            raise ModelError(
                f"There is nothing to learn from {n} books: no word is in {self.min_df} of them. Crawl more first."
            )
        terms, term_idf = self._weighted_terms(counted)
        categories, category_idf, category_names = self._weighted_categories(counted)
        vectors = normalize(hstack([terms, categories], format="csr", dtype=np.float32), copy=False)
        vectors.sort_indices()
        self.book_ids, self.prints_, self.title_prints_ = counted.book_ids, counted.prints, counted.title_prints
        self.works_ = works_of(counted.titles)
        self.vocabulary_ = counted.term_names + category_names
        self.n_categories_ = len(category_names)
        self.idf_ = np.concatenate([term_idf, category_idf]).astype(np.float32)
        self.index_ = InvertedIndex(Compressed.of(vectors), Compressed.of(vectors.T.tocsr()))
        self._learn_embedding(vectors, counted.encoded)
        self.search_ = SearchIndex.of(counted.titles, counted.term_names, self.idf_)
        self.lists_, self.figures_, self.segments_ = None, {}, None
        if self.embedding_ is not None:
            self.segments_ = segments_of(self.embedding_, self.index_.by_book, len(counted.term_names))
        if n <= UP_TO:
            self.lists_ = whole_lists(self.index_, self.works_, self.embedding_, self.embedding_weight)
        elif self.embedding_ is None:
            self.lists_, made = nearest_lists(self.index_, self.works_)
            self.figures_ = {"neighbour_seconds": made.seconds, "neighbour_recall_at_10": made.recall_at_10}
        return self

    def fold(self, rows: Sequence[BookText], *, has_encoder: bool = True) -> Self:
        """A model over `rows` in the space that this model has learned: with the same terms, weights and categories,
        over other books, or over the same books with other texts. Unknown terms and categories are ignored.

        Folding the rows that a model was fitted on gives the same model. Needs only NumPy and snowballstemmer.

        Args:
            has_encoder: whether the sentence-embedding model of `minilm` is available. Without it, as in serving, the
                embeddings are 0 with `minilm`: scores come from words and categories only.
        """
        rows = sorted(rows, key=lambda row: row.id)
        folded = type(self)(**self.parameters)
        folded.book_ids = np.array([row.id for row in rows], dtype=np.int64)
        folded.works_ = works_of([row.title for row in rows])
        folded.prints_, folded.title_prints_ = prints_of(rows)
        folded.vocabulary_, folded.n_categories_, folded.idf_ = self.vocabulary_, self.n_categories_, self.idf_
        folded.index_ = self._fold_vectors(rows)
        folded.lists_, folded.figures_, folded.segments_ = None, {}, self.segments_
        folded.search_ = self.search_.fold([row.title for row in rows], self.idf_) if self.search_ else None
        folded.embedding_, folded.embedding_mean_ = None, self.embedding_mean_
        folded.embedding_components_ = self.embedding_components_
        if self.embedding_mean_ is not None:
            embedded = self._embedded(rows, folded.index_.by_book, has_encoder)
            folded.embedding_ = centred(embedded, self.embedding_mean_)
        return folded

    def _fold_vectors(self, rows: Sequence[BookText]) -> InvertedIndex:
        place = self.stems
        term = _text.term_of()
        known: dict[str, int | None] = {}  # each word is stemmed once, not at every occurrence
        owners: list[int] = []
        columns: list[int] = []
        data: list[float] = []
        for owner, row in enumerate(rows):
            counts: Counter[int] = Counter()
            for word in self.words(row):
                at = known[word] if word in known else known.setdefault(word, place.get(term(word)))
                if at is not None:
                    counts[at] += 1
            owners += [owner] * len(counts)
            columns += counts.keys()
            data += counts.values()
        weights = (1 + np.log(np.array(data, dtype=np.float64))) * self.idf_[columns]
        books, shelves, category_weights = self._fold_categories(rows)
        return unit_index(
            np.array([*owners, *books], dtype=np.int64),
            np.array([*columns, *shelves], dtype=np.int64),
            np.concatenate([weights, category_weights]),
            (len(rows), len(self.vocabulary_)),
            len(self.vocabulary_) - self.n_categories_,
        )

    @cached_property
    def stems(self) -> Stems:
        """The column of each term; loaded with the model, or computed here for one of an earlier release."""
        n_terms = len(self.vocabulary_) - self.n_categories_
        term = _text.term_of()
        pairs = [(term(word), at) for at, word in enumerate(self.vocabulary_[:n_terms])]
        return Stems.of({stem: at for stem, at in pairs if stem is not None})

    def _fold_categories(self, rows: Sequence[BookText]) -> tuple[list[int], list[int], NDArray[np.float64]]:
        """(books, columns, weights) with one entry per book whose category was learned."""
        n_terms = len(self.vocabulary_) - self.n_categories_
        place = {name: at for at, name in enumerate(self.vocabulary_[n_terms:], n_terms)}
        mean = self.idf_[n_terms:].mean() if self.n_categories_ else 1.0
        books = [at for at, row in enumerate(rows) if row.category_name in place and self._is_known(row.category)]
        columns = [place[rows[at].category_name] for at in books]
        return books, columns, np.asarray(self.category_weight * self.idf_[columns] / mean, dtype=np.float64)

    def _is_known(self, category: str) -> bool:
        return category not in self.unknown_categories

    def words(self, row: BookText) -> list[str]:
        """The words to count for a book, each as often as it counts."""
        category_words = _text.words(row.category_name) if self._is_known(row.category) else []
        return (
            _text.words(row.title) * self.title_weight
            + _text.words(row.description or "")
            + category_words * self.category_name_weight
        )

    def is_encoded(self, books: int) -> bool:
        """Whether a model of this many books needs their sentence embeddings."""
        return self.embedding == "minilm" and books <= self.embedding_up_to

    def _weighted_terms(self, counted: Counted) -> tuple[csr_matrix, NDArray[np.float64]]:
        """(n, t) unit vectors of the text, and the idf of the terms."""
        from sklearn.feature_extraction.text import TfidfTransformer

        weighting = TfidfTransformer(sublinear_tf=True)
        return weighting.fit_transform(counted.terms), weighting.idf_

    def _weighted_categories(self, counted: Counted) -> tuple[csr_matrix, NDArray[np.float64], list[str]]:
        """(n, categories) with one entry per book of a known category, the categories' idf, and their names."""
        from scipy.sparse import csr_matrix

        slugs, n = counted.categories, len(counted.categories)
        names = {slug: name for slug, name in zip(slugs, counted.category_names, strict=True) if self._is_known(slug)}
        place = {slug: at for at, slug in enumerate(sorted(names))}
        book_at = [at for at, slug in enumerate(slugs) if slug in place]
        category_at = np.array([place[slugs[at]] for at in book_at], dtype=np.int64)
        idf = np.log((1 + n) / (1 + np.bincount(category_at, minlength=len(place)))) + 1
        weights = self.category_weight * idf[category_at] / (idf.mean() if len(idf) else 1.0)
        vectors = csr_matrix((weights, (book_at, category_at)), shape=(n, len(place)))
        return vectors, idf, [names[slug] for slug in place]

    def _learn_embedding(self, vectors: csr_matrix, encoded: NDArray[np.float32] | None) -> None:
        """Learn the embedding, from the books' vectors or from their sentence embeddings."""
        self.embedding_ = self.embedding_mean_ = self.embedding_components_ = None
        if self.embedding == "none" or vectors.shape[0] > self.embedding_up_to or min(vectors.shape) < 2:
            return
        if self.embedding == "lsa":
            self.embedding_components_ = _lsa.components_of(vectors)
            encoded = _lsa.along(self.index_.by_book, self.embedding_components_)
        assert encoded is not None
        self.embedding_mean_ = encoded[encoded.any(axis=1)].mean(axis=0)
        self.embedding_ = centred(encoded, self.embedding_mean_)

    def _embedded(self, rows: Sequence[BookText], vectors: Compressed, has_encoder: bool) -> NDArray[np.float32]:
        """(n, d) the embeddings of the rows, not centred."""
        if self.embedding_components_ is not None:
            return _lsa.along(vectors, self.embedding_components_)
        if has_encoder:
            return encoded(rows)
        assert self.embedding_mean_ is not None
        return np.zeros((len(rows), len(self.embedding_mean_)), dtype=np.float32)

    def recommend(self, book_id: int, limit: int, is_allowed: NDArray[np.bool_] | None = None) -> list[Recommendation]:
        """See `Model.recommend`. A list holds a work at most once, and never the work of the given book.

        Args:
            is_allowed: (n,) in the order of `book_ids`: the books that may be in the list; all if None.
        """
        at = bisect_left(self.book_ids, book_id)
        if at == len(self.book_ids) or self.book_ids[at] != book_id:
            raise KeyError(book_id)
        others, scores = self._nearest(at, limit, is_allowed)
        capped = np.minimum(scores, 1.0)
        why = self.reasons(capped, self._senses(at, others), self.index_.shared(at, others, REASONS))
        return [
            Recommendation(book_id, score, reasons)
            for book_id, score, reasons in zip(self.book_ids[others].tolist(), capped.tolist(), why, strict=True)
        ]

    def _nearest(
        self, at: int, limit: int, is_allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
        """Places and scores: from the precomputed list if it is long enough, else by a search."""
        if self.lists_ is not None:
            listed = self.lists_.of(at, limit, self.works_, None if is_allowed is None else is_allowed.take)
            if listed is not None:
                return listed
            if is_allowed is not None and len(self.book_ids) > UP_TO:
                return self.index_.among(at, is_allowed, self.works_, limit)
        found = self._scores(at)
        found[self.works_ == self.works_[at]] = 0
        if is_allowed is not None:
            found[~is_allowed] = 0
        others = nearest(found, self.works_, limit)
        return others, found[others]

    def _scores(self, at: int) -> NDArray[np.float64]:
        """(n,): how near every book is to the one at place `at`."""
        cosines = self.index_.cosines(at)
        if self.embedding_ is None:
            return cosines
        senses = senses_of(self.embedding_, self.embedding_weight, self.embedding_[at], slice(None))
        return (1 - self.embedding_weight) * cosines + senses

    def _senses(self, at: int, others: NDArray[np.integer]) -> NDArray[np.floating]:
        """What the embedding adds to the scores of `others`."""
        if self.embedding_ is None:
            return np.zeros(len(others))
        return senses_of(self.embedding_, self.embedding_weight, self.embedding_[at], others)

    def reasons(self, scores: NDArray[np.floating], senses: NDArray[np.floating], shared: Shared) -> list[list[Reason]]:
        """The reasons for each of the k books of `scores`: see `told_reasons`."""
        return told_reasons(scores, senses, shared, self.vocabulary_, len(self.vocabulary_) - self.n_categories_)

    def save(self, folder: Path) -> None:
        """See `Model.save`."""
        _tfidf_artifact.save(self, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """See `Model.load`."""
        return _tfidf_artifact.load(cls, folder)
