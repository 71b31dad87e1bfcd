"""Response models of the routes about popularity and feedback, as /docs shows them."""

from __future__ import annotations

from pydantic import Field

from serving.schemas.books import Book, DataVersion, ResponseModel


class PopularBook(ResponseModel):
    """A book and its popularity."""

    book: Book = Field(description="The book.")
    interest: int = Field(
        description="Number of readers who clicked, liked or swapped it in the last 30 days. An account counts as one "
        "reader, or as many as it named in `reader`.",
        examples=[17],
    )


class PopularBooks(ResponseModel):
    """Popular books."""

    items: list[PopularBook] = Field(description="Most popular first.")
    data_version: DataVersion


class FeedbackReceipt(ResponseModel):
    """Result of storing the events."""

    stored: int = Field(description="Number of new events that were stored.", examples=[1])
    known: int = Field(description="Number of events that were already stored; they stay unchanged.", examples=[0])
