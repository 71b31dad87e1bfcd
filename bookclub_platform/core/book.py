"""The two shapes of a row: page -> RawBook (as found) -> cleaning -> Book (as stored) -> table.

This module defines the fields, their types, units and rules. It does not define how a page is read (sources/), how a
field is cleaned (cleaning.py), or how a row is stored (core/tables.py).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from bookclub_platform.core.rules import PAGE_READABLE, Column, at_most, given, within, written_as

_DEAREST = Decimal("99999999.99")  # the maximum of numeric(10,2)
_MOST = 2**31 - 1  # the maximum of a Postgres integer
# In bytes. An index of Postgres holds a key or an address, the source and the crawl in at most 2,704.
LONGEST_KEY = 2_000
_LONGEST_TITLE, _LONGEST_UPC, _LONGEST_SLUG = 4_000, 200, 200


@dataclass(frozen=True, slots=True)
class Category:
    """A category of a shop. `slug` is the partition key (`science-fiction`), `url` its first listing page."""

    slug: str
    name: str
    url: str


def slug_of(name: str) -> str:
    """ "Science Fiction & Fantasy" -> "science-fiction-fantasy", "Poésie" -> "poesie"; "" if no letter is left."""
    plain = "".join(sign for sign in unicodedata.normalize("NFKD", name) if not unicodedata.combining(sign))
    return re.sub(r"[\W_]+", "-", plain.lower()).strip("-")


@dataclass(frozen=True, slots=True)
class RawBook:
    """One book as its page or row gives it: text as found, None where an element is missing.

    Attributes:
        source_id: the source's own key, if it has one other than the UPC.
        currency: ISO 4217, if it is separate from the price.
        raw_page: the location of the stored page, `<path below the raw folder>#<offset of its record>`; None without.
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
    """One book as the table stores it. The annotations are the only definition of each field's meaning and rules: see
    core/rules.py and docs/rows.md, which is generated from them."""

    source: Annotated[str, Column("Name of the shop, as sources.yaml calls it."), given()]
    source_id: Annotated[
        str,
        Column("The shop's own key: the UPC where there is no other, else the address."),
        given(),
        at_most(LONGEST_KEY),
    ]
    upc: Annotated[str | None, Column("Universal Product Code, as the shop writes it."), at_most(_LONGEST_UPC)]
    title: Annotated[str, Column("Title, as the shop shows it."), given(), at_most(_LONGEST_TITLE)]
    category: Annotated[str, Column("Slug of the category: the partition key."), given(), at_most(_LONGEST_SLUG)]
    category_name: Annotated[str, Column("The category, as the shop shows it."), given()]
    price: Annotated[Decimal, Column("What the shop asks for one copy.", "`currency`"), within(0, _DEAREST)]
    currency: Annotated[str, Column("Currency of the price.", "ISO 4217"), written_as("[A-Z]{3}", "three letters")]
    rating: Annotated[int | None, Column("Rating; null where the shop shows none.", "stars"), within(1, 5)]
    stock: Annotated[int | None, Column("Copies at hand; null where they are not counted.", "copies"), within(0, _MOST)]
    in_stock: Annotated[bool, Column("Whether the shop says that it has any.")]
    description: Annotated[str | None, Column("Blurb, without the teaser before it; null where there is none.")]
    num_reviews: Annotated[int | None, Column("Reviews; null where the shop counts none.", "reviews"), within(0, _MOST)]
    url: Annotated[str, Column("The book's page, or the line of a file."), given(), at_most(LONGEST_KEY)]
    image_url: Annotated[str | None, Column("Its cover.")]
    seen_at: Annotated[datetime, Column("When the page was fetched: `last_seen_at` in the table.", "UTC")]


@dataclass(frozen=True, slots=True)
class RejectedBook:
    """A page that gave no Book: stored with the rule that it broke, the reason in words, and the location of the page
    (as in RawBook.raw_page), so that nothing is lost silently. `url` has at most LONGEST_KEY bytes."""

    source: str
    category: str
    url: str
    reason: str
    seen_at: datetime
    raw_page: str | None = None
    rule: str = PAGE_READABLE.name
