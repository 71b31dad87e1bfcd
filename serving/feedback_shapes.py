"""The shapes of the answers about what readers want and did, as /docs shows them."""

from __future__ import annotations

from pydantic import Field

from serving.schemas import Answer, Book, DataVersion


class PopularBook(Answer):
    """A book, and how many want it."""

    book: Book = Field(description="All of it.")
    interest: int = Field(
        description="How many readers clicked, liked or swapped it in the last 30 days.", examples=[17]
    )


class PopularBooks(Answer):
    """What readers want."""

    items: list[PopularBook] = Field(description="The most wanted first.")
    data_version: DataVersion


class FeedbackReceipt(Answer):
    """What became of the events."""

    stored: int = Field(description="Events that are kept now and were not before.", examples=[1])
    known: int = Field(description="Events that had been told before; the first telling stays.", examples=[0])
