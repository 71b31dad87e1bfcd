"""A fitted model + the books added or changed since -> one model of all of them, which grows while it serves requests.

    grown = Grown(model); grown = grown.grow(rows)      rows: list[BookText], from now on in the model's space
    grown.nearest(grown.probe([7]), limit=10)           list[Recommendation]
    grown.nearest(grown.probe_of_text("a whale ..."), 10, is_allowed=mask, diversity=0.3)

Nothing of the fitted model is copied: the newer books form a small second model, and each list is merged from the two.
A `Grown` is immutable; `grow` returns a new one. Needs only NumPy and snowballstemmer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.models._contract import BookText, Recommendation
from bookclub_platform.models._fold import merged
from bookclub_platform.models._index import Vector, nearest
from bookclub_platform.models._lists import Allowed
from bookclub_platform.models._reasons import REASONS
from bookclub_platform.models._whole_lists import senses_of
from bookclub_platform.models.tfidf import Tfidf

SCANNED = 20_000  # up to this many books, every book is scored; beyond, only those that lead by their words
POOL = 100  # candidates that a diverse list is chosen from


class Probe(NamedTuple):
    """The query of a search for near books: the mean of some books, or a text.

    Attributes:
        sense: (d,) its embedding; None without one.
        works: the works of the books in the query; they are in no list.
        at: the place of the book, if the query is a single book as it was learned.
    """

    vector: Vector
    sense: NDArray[np.float32] | None
    works: tuple[int, ...] = ()
    at: int | None = None


@dataclass(frozen=True)
class Grown:
    """A place is a book's row in `base`, or `len(base.book_ids)` + its row in `fresh`, which wins if both have a book.

    Attributes:
        base: the fitted model.
        fresh: the newer books, folded.
    """

    base: Tfidf
    fresh: Tfidf | None = None

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """(p,): the book at each place."""
        return self.base.book_ids if self.fresh is None else np.concatenate([self.base.book_ids, self.fresh.book_ids])

    @cached_property
    def is_current(self) -> NDArray[np.bool_]:
        """(p,): False where a book's text has changed since the fit, so that its place in `fresh` is the valid one."""
        current = np.ones(len(self.ids), dtype=np.bool_)
        if self.fresh is not None:
            current[: self._n] = ~np.isin(self.base.book_ids, self.fresh.book_ids)
        return current

    @cached_property
    def works(self) -> NDArray[np.int32]:
        """(p,): equal for books that are the same work."""
        if self.fresh is None:
            return self.base.works_
        first: dict[int, int] = {}
        for at, title in enumerate(self.fresh.title_prints_.tolist(), self._n):
            first.setdefault(title, at)
        known = np.flatnonzero(np.isin(self.base.title_prints_, self.fresh.title_prints_))
        first |= {int(self.base.title_prints_[at]): int(self.base.works_[at]) for at in known}
        fresh = [first[title] for title in self.fresh.title_prints_.tolist()]
        return np.concatenate([self.base.works_, np.array(fresh, dtype=np.int32)])

    @property
    def _n(self) -> int:
        return len(self.base.book_ids)

    def outdated(self, ids: NDArray[np.int64], prints: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of `ids` (n,), ascending, that are unknown here, or known with a text of another fingerprint."""
        is_known = np.zeros(len(ids), dtype=np.bool_)
        for part in self._parts():
            at, has = _found(part.book_ids, ids)
            is_known[has] = part.prints_[at[has]] == prints[has]
        return ids[~is_known]

    def grow(self, rows: Sequence[BookText]) -> Grown:
        """This model with `rows` in their current state; each id must occur once."""
        if not rows:
            return self
        newer = self.base.fold(rows, has_encoder=False)
        return replace(self, fresh=newer if self.fresh is None else _joined(self.base, self.fresh, newer))

    def place(self, book_id: int) -> int:
        """The place of `book_id`.

        Raises:
            KeyError: the book is unknown.
        """
        for offset, part in ((self._n, self.fresh), (0, self.base)):
            if part is not None:
                at = int(np.searchsorted(part.book_ids, book_id))
                if at < len(part.book_ids) and part.book_ids[at] == book_id:
                    return offset + at
        raise KeyError(book_id)

    def places(self, book_ids: Collection[int]) -> NDArray[np.int64]:
        """The places of the known ones among `book_ids`, in their order."""
        asked = np.fromiter(book_ids, dtype=np.int64, count=len(book_ids))
        found = np.full(len(asked), -1, dtype=np.int64)
        for offset, part in zip((0, self._n), self._parts(), strict=False):
            at, has = _found(part.book_ids, asked)
            found[has] = offset + at[has]
        return found[found >= 0]

    def probe(self, book_ids: Collection[int]) -> Probe:
        """The query for what is near to these books, on average.

        Raises:
            KeyError: one of them is unknown.
        """
        places = [self.place(book_id) for book_id in dict.fromkeys(book_ids)]
        vectors = [self._part(place)[0].index_.vector(self._part(place)[1]) for place in places]
        senses = [self._sense(place) for place in places]
        works = tuple(int(self.works[place]) for place in places)
        if len(places) == 1:
            at = places[0] if places[0] < self._n else None
            return Probe(vectors[0], senses[0], works, at)
        columns, entry = np.unique(np.concatenate([one.columns for one in vectors]), return_inverse=True)
        sums = np.bincount(entry, np.concatenate([one.weights for one in vectors]), len(columns)) / len(places)
        sense = None if self.base.embedding_ is None else np.mean([one for one in senses if one is not None], axis=0)
        return Probe(Vector(columns, sums.astype(np.float32)), sense, works)

    def probe_of_text(self, text: str) -> Probe:
        """The query for what is near to a text, treated as a description."""
        folded = self.base.fold([BookText(0, "", text, "", "")], has_encoder=False)
        return Probe(folded.index_.vector(0), None if folded.embedding_ is None else folded.embedding_[0])

    def nearest(
        self,
        probe: Probe,
        limit: int,
        is_allowed: NDArray[np.bool_] | None = None,
        exclude: Collection[int] = (),
        diversity: float = 0.0,
    ) -> list[Recommendation]:
        """The `limit` nearest, nearest first, one per work; fewer if fewer share anything.

        Args:
            is_allowed: (p,) by place: the books that may be in the list; all if None.
            exclude: ids whose works may not be in the list; unknown ids are ignored.
            diversity: 0..1, the penalty of a book for being near to one above it in the list (maximal marginal
                relevance, over the `POOL` nearest). The list is then in the order of selection.
        """
        depth = max(POOL, 2 * limit) if diversity > 0 else limit
        places, scores = self.ranked(probe, depth, is_allowed, exclude)
        chosen = self._spread(places, scores, limit, diversity) if diversity > 0 else np.arange(min(limit, len(places)))
        return self.explained(probe, places[chosen], scores[chosen])

    def listed(
        self, place: int, limit: int, allowed: Allowed | None
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]] | None:
        """What `ranked` returns for the book at `place`, if a precomputed list has it; None if it takes a search."""
        if self.fresh is not None or self.base.lists_ is None:
            return None
        found = self.base.lists_.of(place, limit, self.base.works_, allowed)
        return (found[0], np.minimum(found[1], 1.0)) if found is not None else None

    def ranked(
        self,
        probe: Probe,
        limit: int,
        is_allowed: NDArray[np.bool_] | None = None,
        exclude: Collection[int] = (),
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
        """Places and scores of `nearest`, highest first; ties go to the lower id."""
        if probe.at is not None and not exclude:
            listed = self.listed(probe.at, limit, None if is_allowed is None else is_allowed.take)
            if listed is not None:
                return listed
        left_out = {*probe.works, *self.works[self.places(exclude)].tolist()}
        wanted = limit + len(left_out)  # each work takes at most one place in a list
        may = self.is_current if is_allowed is None else is_allowed
        found = [self._in_base(probe, may[: self._n], wanted)]
        if self.fresh is not None:
            at, scores = _search(self.fresh, probe, may[self._n :], self.works[self._n :], wanted)
            found.append((at + self._n, scores))
        places = np.concatenate([at for at, _ in found]).astype(np.int64)
        scores = np.minimum(np.concatenate([near for _, near in found]), 1.0).astype(np.float64)
        order = np.lexsort((self.ids[places], -scores))
        order = order[~np.isin(self.works[places[order]], list(left_out))]
        _, first = np.unique(self.works[places[order]], return_index=True)
        order = order[np.sort(first)[:limit]]
        return places[order], scores[order]

    def _in_base(
        self, probe: Probe, may: NDArray[np.bool_], wanted: int
    ) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
        """From the precomputed list if it is long enough, else by a search."""
        if probe.at is not None and self.base.lists_ is not None:
            listed = self.base.lists_.of(probe.at, wanted, self.base.works_, may.take)
            if listed is not None:
                return listed
        return _search(self.base, probe, may, self.base.works_, wanted)

    def _spread(
        self, places: NDArray[np.integer], scores: NDArray[np.floating], limit: int, diversity: float
    ) -> NDArray[np.int64]:
        """The indices of the chosen candidates, in the order of selection."""
        vectors = [self._part(place)[0].index_.vector(self._part(place)[1]) for place in places.tolist()]
        owners = np.repeat(np.arange(len(places)), [len(one.columns) for one in vectors])
        values = np.concatenate([np.empty(0, np.float32), *(one.weights for one in vectors)])
        columns = np.concatenate([np.empty(0, np.int32), *(one.columns for one in vectors)])
        names, columns = np.unique(columns, return_inverse=True)
        senses = None
        if self.base.embedding_ is not None and len(places):
            senses = np.array([self._sense(place) for place in places.tolist()])
        words_weight = 1.0 if senses is None else 1 - self.base.embedding_weight
        likeness = np.zeros(len(places))
        worth = (1 - diversity) * scores
        chosen: list[int] = []
        while len(chosen) < min(limit, len(places)):
            merit = worth - diversity * likeness
            merit[chosen] = -np.inf
            best = int(np.argmax(merit))
            chosen.append(best)
            weight_of = np.zeros(len(names))
            is_best = owners == best
            weight_of[columns[is_best]] = values[is_best]
            alike = words_weight * np.bincount(owners, values * weight_of[columns], len(places))
            if senses is not None:
                alike += self.base.embedding_weight * np.maximum(senses @ senses[best], 0)
            likeness = np.maximum(likeness, alike)
        return np.array(chosen, dtype=np.int64)

    def explained(
        self, probe: Probe, places: NDArray[np.integer], scores: NDArray[np.floating]
    ) -> list[Recommendation]:
        """The books at these places, with what each shares with the probe."""
        found: dict[int, Recommendation] = {}
        for offset, part in ((0, self.base), (self._n, self.fresh)):
            inside = np.flatnonzero((places >= self._n) == (offset > 0))
            if part is None or not len(inside):
                continue
            at = places[inside] - offset
            near = scores[inside]
            why = self.base.reasons(near, _senses(part, probe, at), part.index_.shared(probe.vector, at, REASONS))
            ids = part.book_ids[at].tolist()
            found.update(zip(inside.tolist(), map(Recommendation, ids, near.tolist(), why), strict=True))
        return [found[rank] for rank in range(len(places))]

    def _parts(self) -> list[Tfidf]:
        return [self.base] if self.fresh is None else [self.base, self.fresh]

    def _part(self, place: int) -> tuple[Tfidf, int]:
        if self.fresh is None or place < self._n:
            return self.base, place
        return self.fresh, place - self._n

    def _sense(self, place: int) -> NDArray[np.float32] | None:
        part, at = self._part(place)
        return None if part.embedding_ is None else part.embedding_[at]


def _search(
    part: Tfidf, probe: Probe, may: NDArray[np.bool_], works: NDArray[np.int32], wanted: int
) -> tuple[NDArray[np.integer], NDArray[np.floating]]:
    """Places in `part` and scores of the `wanted` nearest that `may` be in the list, one per work."""
    if len(part.book_ids) > SCANNED:
        # The embedding only re-ranks the books that are near by their words.
        depth = wanted if part.embedding_ is None else max(5 * wanted, POOL)
        at, cosines = part.index_.among(probe.vector, may, works, depth)
        if part.embedding_ is None:
            return at, cosines
        scores = (1 - part.embedding_weight) * cosines + _senses(part, probe, at)
        order = np.argsort(-scores, kind="stable")[:wanted]
        return at[order], scores[order]
    places = np.flatnonzero(may)
    is_narrow = len(places) < len(may) / 8  # then scoring these books one by one is cheaper than scoring all at once
    scores = part.index_.cosines_of(probe.vector, places) if is_narrow else part.index_.cosines(probe.vector)[places]
    if part.embedding_ is not None:
        scores = (1 - part.embedding_weight) * scores + _senses(part, probe, places)
    best = nearest(scores, works[places], wanted)
    return places[best], scores[best]


def _senses(part: Tfidf, probe: Probe, at: NDArray[np.integer]) -> NDArray[np.floating]:
    """What the embedding adds to the scores of the books at these places."""
    if part.embedding_ is None or probe.sense is None:
        return np.zeros(len(at))
    return senses_of(part.embedding_, part.embedding_weight, probe.sense, at)


def _joined(base: Tfidf, older: Tfidf, newer: Tfidf) -> Tfidf:
    """One folded model of the books of both; if both have a book, `newer` wins."""
    is_kept = ~np.isin(older.book_ids, newer.book_ids)
    ids = np.concatenate([older.book_ids[is_kept], newer.book_ids])
    order = np.argsort(ids, kind="stable")
    joined = type(newer)(**newer.parameters)
    joined.search_ = None
    if base.search_ is not None and older.search_ is not None and newer.search_ is not None:
        titles = [*compress(older.search_.titles(), is_kept), *newer.search_.titles()]
        joined.search_ = base.search_.fold([titles[at] for at in order], base.idf_)
    joined.book_ids = ids[order]
    joined.prints_ = np.concatenate([older.prints_[is_kept], newer.prints_])[order]
    joined.title_prints_ = np.concatenate([older.title_prints_[is_kept], newer.title_prints_])[order]
    joined.works_ = np.unique(joined.title_prints_, return_inverse=True)[1].astype(np.int32)
    joined.vocabulary_, joined.n_categories_, joined.idf_ = newer.vocabulary_, newer.n_categories_, newer.idf_
    joined.index_ = merged(older.index_, is_kept, newer.index_, order)
    joined.lists_, joined.figures_, joined.segments_ = None, {}, newer.segments_
    joined.embedding_mean_, joined.embedding_ = newer.embedding_mean_, None
    joined.embedding_components_ = newer.embedding_components_
    if older.embedding_ is not None and newer.embedding_ is not None:
        joined.embedding_ = np.concatenate([older.embedding_[is_kept], newer.embedding_])[order]
    return joined


def _found(known: NDArray[np.int64], ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(n,) each: the position in `known` (ascending) where each of `ids` would be, and whether it is there."""
    at = np.searchsorted(known, ids)
    at[at == len(known)] = 0
    return at, (known[at] == ids) if len(known) else np.zeros(len(ids), dtype=np.bool_)
