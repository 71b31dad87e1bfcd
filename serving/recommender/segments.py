"""Champion + snapshot -> the segments of the catalogue, and the books of one.

    find(champion, snapshot) -> Segments; books_of(champion, "3-1", in_stock=None) -> (Segment, ids ascending)

Segments group books, not readers: data about readers comes through the accounts of shops, which do not identify the
people behind them. A shop can build a themed shelf or a campaign from a segment: books on similar subjects, from all
categories. The model learns the segments with its embedding, so they are as old as the model; books added since are
assigned to them. A new model has new segments. An `id` names the model, so it never comes to mean a different segment.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.browse import IN_STOCK, Filters
from bookclub_platform.core.tables import select_listed
from bookclub_platform.models import Grown
from serving.database.catalogue import Snapshot
from serving.http import problems
from serving.recommender.champion import Champion
from serving.schemas.books import Book, ModelRef
from serving.schemas.segments import EXAMPLES, Segment, Segments, SegmentWithExamples

_NAMED_BY = 3


class _Group(NamedTuple):
    """A segment's places in the lineup: `listed`, the most typical first; `has_stock`: which of them are in stock."""

    segment: Segment
    listed: NDArray[np.int64]
    has_stock: NDArray[np.bool_]


async def find(champion: Champion, snapshot: Snapshot) -> Segments:
    """The segments with a listed book.

    Raises:
        Problem: 404, the model has no segments.
    """
    groups = _groups(champion)
    ids = champion.lineup.grown.ids
    chosen = [ids[np.concatenate([listed[has], listed[~has]])[: 2 * EXAMPLES]].tolist() for _, listed, has in groups]
    rows = await snapshot.rows(select_listed(sorted({book_id for some in chosen for book_id in some})))
    books = {row.id: Book.model_validate(row) for row in rows}
    items = [
        SegmentWithExamples(**dict(group.segment), examples=[books[at] for at in some if at in books][:EXAMPLES])
        for group, some in zip(groups, chosen, strict=True)
    ]
    return Segments(
        items=items,
        total=len(items),
        model=ModelRef.model_validate(champion.version),
        data_version=snapshot.data_version,
    )


def books_of(champion: Champion, segment_id: str, in_stock: bool | None) -> tuple[Segment, list[int]]:
    """The segment, and the ids of its listed books that pass, ascending.

    Raises:
        Problem: 404, there is no such segment, or it no longer exists.
    """
    version, _, number = segment_id.partition("-")
    if version != champion.version.version:
        raise problems.Problem(
            "other-model",
            f"Segment {segment_id} belongs to model version {version}; version {champion.version.version} is in use. "
            "GET /segments lists its segments.",
        )
    for segment, listed, has_stock in _groups(champion):
        if segment.id == f"{version}-{int(number)}":
            chosen = listed if in_stock is None else listed[has_stock == in_stock]
            return segment, sorted(champion.lineup.grown.ids[chosen].tolist())
    raise problems.Problem("unknown-segment", f"No segment has the id {segment_id}. GET /segments lists all segments.")


def _groups(champion: Champion) -> list[_Group]:
    """The segments with a listed book. Takes a few milliseconds for 20,000 books, the most that can have segments."""
    grown, version = champion.lineup.grown, champion.version
    learned = grown.base.segments_
    if learned is None:
        raise problems.Problem(
            "no-segments",
            f"{version.name} version {version.version} has no segments: it was trained by an earlier release, or on "
            "too few books, or on so many that it has no embedding. Train a new model, or use /categories.",
        )
    segment, nearness = _placed(grown)
    listed = champion.lineup.allowed(Filters())
    has_stock = champion.lineup.allowed(IN_STOCK)
    groups = []
    for at, columns in enumerate(learned.terms):
        places = np.flatnonzero(listed & (segment == at))
        if not len(places):
            continue
        places = places[np.argsort(-nearness[places], kind="stable")]
        terms = [grown.base.vocabulary_[column] for column in columns.tolist() if column >= 0]
        facts = Segment(
            id=f"{version.version}-{at + 1}",
            name=", ".join(terms[:_NAMED_BY]) or f"Segment {at + 1}",
            terms=terms,
            books=len(places),
            in_stock=int(has_stock[places].sum()),
        )
        groups.append(_Group(facts, places, has_stock[places]))
    return sorted(groups, key=lambda group: -group.segment.books)


def _placed(grown: Grown) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(p,) each, by place: the segment, and how typical the book is for it."""
    learned = grown.base.segments_
    parts = [part for part in (grown.base, grown.fresh) if part is not None]
    assert learned is not None
    found = [learned.nearest(part.embedding_) for part in parts if part.embedding_ is not None]
    return np.concatenate([segment for segment, _ in found]), np.concatenate([near for _, near in found])
