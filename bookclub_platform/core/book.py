"""The two shapes of a row: page -> RawBook (as found) -> cleaning -> Book (as kept) -> table.

What belongs here: the fields, their types and units. What does not: how a page is read (sources/), how a field is
mended (cleaning.py), how a row is stored (core/tables.py).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Category:
    """A category of a shop. `slug` is the partition key (`science-fiction`), `url` its first listing page."""

    slug: str
    name: str
    url: str


def slug_of(name: str) -> str:
    """ "Science Fiction & Fantasy" -> "science-fiction-fantasy", "Poésie" -> "poesie"; "" where no letter is left."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return re.sub(r"[\W_]+", "-", plain.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class RawBook:
    """One book as its page or row says it: text as found, None where there is no such element.

    Attributes:
        source_id: the source's own key, where it has another than the UPC.
        currency: ISO 4217, where it stands apart from the price.
        raw_page: where the kept page lies, `<path below the raw folder>#<offset of its record>`; None where none is.
    """

    source: str
    url: str
    category: str
    category_name: str | None
    upc: str | None
    title: str | None
    price: str | None
    rating: str | None
    availability: str | None
    description: str | None
    num_reviews: str | None
    image_url: str | None
    seen_at: datetime
    source_id: str | None = None
    currency: str | None = None
    raw_page: str | None = None


@dataclass(frozen=True, slots=True)
class Book:
    """One book as the table keeps it.

    Attributes:
        source: name of the shop, as sources.yaml calls it.
        source_id: the shop's own key for the book: the UPC where there is no other, else its URL.
        category: slug; `category_name` is what the shop shows.
        price: in units of `currency` (ISO 4217), two decimals.
        rating: stars, 1 to 5; None where the shop shows none.
        stock: copies at hand; None where the shop says only whether there are any.
        seen_at: when the page was fetched, UTC.
    """

    source: str
    source_id: str
    upc: str | None
    title: str
    category: str
    category_name: str
    price: Decimal
    currency: str
    rating: int | None
    stock: int | None
    in_stock: bool
    description: str | None
    num_reviews: int | None
    url: str
    image_url: str | None
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class RejectedBook:
    """A page that gave no Book: kept, with the reason and where the page lies (as RawBook.raw_page), so that nothing is
    lost silently."""

    source: str
    category: str
    url: str
    reason: str
    seen_at: datetime
    raw_page: str | None = None
