"""Segments of the catalogue, as /docs shows them."""

from __future__ import annotations

from pydantic import Field

from serving.schemas.books import Book, DataVersion, ModelRef, ResponseModel

EXAMPLES = 3
SEGMENT_ID = "^[0-9]{1,9}-[1-9][0-9]?$"


class Segment(ResponseModel):
    """A group of books about similar things."""

    id: str = Field(
        description="Id for /segments/{segment_id}: the version of the model and a number.",
        examples=["3-1"],
    )
    name: str = Field(
        description="Its strongest terms, for display. Two segments may have the same name.",
        examples=["lighthouse, storm, harbour"],
    )
    terms: list[str] = Field(
        description="The terms that distinguish it, strongest first, spelt as in texts.",
        examples=[["lighthouse", "storm", "harbour", "sailor"]],
    )
    books: int = Field(description="Number of listed books in it.", examples=[64])
    in_stock: int = Field(description="How many of them are in stock.", examples=[61])


class SegmentWithExamples(Segment):
    """A segment with example books."""

    examples: list[Book] = Field(description=f"Up to {EXAMPLES} books, most typical first, sold-out ones last.")


class Segments(ResponseModel):
    """All segments of the catalogue."""

    items: list[SegmentWithExamples] = Field(description="Largest first.")
    total: int = Field(description="Number of segments.", examples=[22])
    model: ModelRef = Field(description="The model that learned the segments.")
    data_version: DataVersion


class SegmentPage(ResponseModel):
    """One page of the books of a segment."""

    segment: Segment = Field(description="The whole segment, not only the books that pass the filter.")
    items: list[Book] = Field(description="In order of `id`.")
    next: str | None = Field(description="`cursor` of the next page; null on the last page.", examples=["20"])
    total: int = Field(description="Books that pass the filter, on all pages.", examples=[64])
    model: ModelRef = Field(description="The model that learned the segment.")
    data_version: DataVersion
