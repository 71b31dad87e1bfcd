"""A file of a real shop, or the sandbox -> its books as the model gets them: cleaned rows, prices and stars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bookclub_platform.cleaning import clean
from bookclub_platform.core.book import RawBook
from bookclub_platform.models import BookText
from bookclub_platform.sandbox.catalogue import generate
from bookclub_platform.sandbox.words import words

STARS = ("", "One", "Two", "Three", "Four", "Five")


class Shelf(NamedTuple):
    """Books in order of id; `upcs`, `prices` and `stars` belong to the row at the same place."""

    rows: list[BookText]
    upcs: list[str]
    prices: list[float]
    stars: list[int]


def shelf(file: Path | None, sandbox_books: int) -> Shelf:
    """The books of `file` (JSON lines), cleaned as the platform does; without a file, the books of the sandbox."""
    raw = list(_real(file) if file else made_up(sandbox_books))
    books = clean(raw).books
    return Shelf(
        [
            BookText(at, book.title, book.description, book.category, book.category_name)
            for at, book in enumerate(books, 1)
        ],
        [book.source_id for book in books],
        [float(book.price or 0) for book in books],
        [book.rating or 0 for book in books],
    )


def _real(file: Path) -> Iterator[RawBook]:
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line:
            book = json.loads(line)
            yield _raw(**{name: book[name] for name in ("upc", "title", "description", "rating", "category")}
                       | {"slug": book["category_slug"], "price": f"£{book['price_gbp']:.2f}"})  # fmt: skip


def made_up(number: int) -> Iterator[RawBook]:
    catalogue = generate(number)
    for book in catalogue.books:
        genre = words().genres[book.genre]
        yield _raw(
            upc=book.upc,
            title=book.title,
            description=catalogue.description(book),
            rating=book.rating,
            category=genre.name,
            slug=genre.slug,
            price=book.price,
        )


def _raw(*, upc: str, title: str, description: str, rating: int, category: str, slug: str, price: str) -> RawBook:
    found: dict[str, Any] = dict.fromkeys(("num_reviews", "image_url"))
    return RawBook(
        source="shop", url=f"http://127.0.0.1/{upc}", category=slug, category_name=category, upc=upc, title=title,
        price=price, rating=STARS[rating], availability="In stock", description=description or None,
        seen_at=datetime.now(UTC), **found,
    )  # fmt: skip
