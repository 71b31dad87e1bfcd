"""The shapes of the questions, as /docs shows them: query string or body -> checked values.

A parameter that does not exist is refused: a misspelt filter would otherwise be answered with too many books.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, Self, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from bookclub_platform.core.browse import Filters, SearchSort, Sort
from bookclub_platform.core.feedback import Kind
from bookclub_platform.export import Format
from serving import problems
from serving.cursor import BY_ID, PLACE, Cursor, decode_place, is_of
from serving.digits import MAX_ID, NUMBER, WHOLE, Amount, Id, Price, Stars, StrictId
from serving.neighbours import Choice
from serving.versions import RECOMMENDATION_ID

MAX_LIMIT = 100
# Control characters say nothing, and Postgres cannot even compare with a text that holds NUL.
_IN_LINE = r"[^\x00-\x1f\x7f]"
ONE_LINE = f"^{_IN_LINE}+$"
# A character that is no space. Spelt out: what \s is differs between languages, and with it who refuses what.
_INKED = r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
MAX_BATCH = 100
MAX_EXCLUDED = 1000
MAX_EXCLUDED_IN_ADDRESS = 200  # so many of the longest ids fit into one, beside all else
MAX_TEXT = 10_000  # characters; the longest blurbs of shops have some thousands

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE]


def _named(*values: str) -> dict[str, Any]:
    """What generated clients call these: of `price` and `-price` they would make PRICE and VALUE_1."""
    return {"x-enum-varnames": [value.lstrip("-").upper() + "_DOWN" * value.startswith("-") for value in values]}


class Question(BaseModel):
    model_config = ConfigDict(extra="forbid")


Slug = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=ONE_LINE,
    ),
]


# Without examples: no cursor, category or shop is one of every catalogue, and what tries all examples at once, as /docs
# does, would find no book.
_CURSOR = "`next` of the page before, as it came; leave it out for the first page."
_CATEGORY = "Slug of a category, from GET /categories, such as `science-fiction`; one that does not exist has no books."


class PageQuery(Question):
    """Which page, and which books by what people choose first."""

    limit: Limit = Field(20, description="How many on a page at most.")
    cursor: Cursor | None = Field(None, description=_CURSOR)
    category: Slug | None = Field(None, description=_CATEGORY)
    in_stock: bool | None = Field(None, description="Only books that can be bought, or only books that cannot.")


class _Narrowed(Question):
    """Which books, past category and stock."""

    source: Slug | None = Field(None, description="The shop that it was found in: `source` of a book.")
    min_price: Price | None = Field(
        None, description="The lowest price, in the book's own currency; it counts as well.", examples=[10]
    )
    max_price: Price | None = Field(
        None, description="The highest price, in the book's own currency; it counts as well.", examples=[19.99]
    )
    min_rating: Stars | None = Field(
        None, description="The fewest stars; books that show none are left out then.", examples=[4]
    )
    facets: bool = Field(False, description="Whether to count the books by category, stars, price and stock as well.")

    def filters(self) -> Filters:
        return Filters(**{name: getattr(self, name) for name in Filters._fields})


class BookQuery(_Narrowed, PageQuery):
    """Which books, in which order, and which page of them."""

    sort: Sort = Field(
        "id",
        description="The order; `-` is downwards. Books without stars are last either way. Titles: without regard to "
        "upper and lower case, by their first 100 characters.",
        json_schema_extra=_named(*get_args(Sort)),
    )


class SegmentQuery(Question):
    """Which page of a segment's books."""

    limit: Limit = Field(20, description="How many on a page at most.")
    cursor: str | None = Field(
        None,
        pattern=BY_ID,
        description=_CURSOR,
    )
    in_stock: bool | None = Field(None, description="Only books that can be bought, or only books that cannot.")


class ExportQuery(Question):
    """What to export, and how."""

    format: Format = Field(
        "ndjson",
        description="ndjson: one JSON object a line, as GET /books/{book_id} answers it, and `also_in`; csv: RFC 4180, "
        "with a header, and an empty field for null; or parquet, which is never packed.",
    )
    with_delisted: bool = Field(False, description="Also the books that the shops no longer show.")
    after: Annotated[int, Field(ge=0, le=MAX_ID), WHOLE] = Field(
        0,
        description="To go on with an export that broke off: the id of the last whole book that came. Ask for the same "
        "`format` and `with_delisted` as before.",
    )
    data_version: str | None = Field(
        None,
        pattern="^(0|[1-9][0-9]{0,15})$",
        description="The header `Bookclub-Data-Version` of the part that came: if the books are of another one now, "
        "the parts would not fit together, and the answer is 409.",
    )


class PredictRequest(Question):
    """Which book to find neighbours for."""

    model_config = ConfigDict(strict=True)

    book_id: Id = Field(description="`id` of a known book.", examples=[1])
    limit: Limit = Field(10, description="How many at most.")


class FeedbackEvent(Question):
    """One thing that one reader did with one recommended book."""

    event_id: UUID = Field(
        description="Of your own choosing, another for each event: told twice, it counts once.",
        examples=["0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"],
    )
    kind: Kind = Field(
        description="`shown`: it was on the screen; `clicked`; `liked`; `swapped`: the reader took it and gave another "
        "book for it. Each is an event of its own: what is swapped was shown before, and may be told so.",
        examples=["clicked"],
    )
    recommendation_id: str = Field(
        pattern=RECOMMENDATION_ID,
        description="`id` of the answer that recommended it: which model, on which state of the catalogue. It may be "
        "old, of a model that was replaced or taken back too. 422 where it cannot be one of ours: no such model has "
        "answered here, or the catalogue has not come to that state yet. Whether this reader was given that list is "
        "not known, and not asked.",
        examples=["tfidf_model/3@50"],
    )
    book_id: StrictId = Field(
        description="The recommended book: of what is `swapped` the one that the reader took.", examples=[12]
    )
    for_book_id: StrictId | None = Field(
        None,
        description="The book that it was recommended for: the one whose list it stood in, whichever the reader gave "
        "for it; null where it was for several, or for a text.",
        examples=[1],
    )
    position: Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT), WHOLE] | None = Field(
        None, description="Its place in the list, from 1.", examples=[1]
    )
    seconds_ago: Annotated[int, Field(strict=True, ge=0, le=30 * 24 * 3600), WHOLE] = Field(
        0,
        description="How long ago it happened; the clocks of readers' devices are not asked.",
        examples=[3],
    )

    reader: Annotated[str, Field(min_length=1, max_length=64, pattern=ONE_LINE)] | None = Field(
        None,
        description="Which reader did it, where one account tells for many: a text of your own choosing, always the "
        "same for a reader, that says nothing of them, such as a random number. A hash of it is kept, and not it "
        "itself. Needs the scope `readers`, which the operator gives to a shop's server. Null: the account itself.",
        examples=[None, "c81e728d9d4c"],
    )


# The list of book 1 offered 12, and the reader gave their 1 for it.
_SWAP: list[JsonValue] = [
    {
        "event_id": event_id,
        "kind": kind,
        "recommendation_id": "tfidf_model/3@50",
        "book_id": 12,
        "for_book_id": 1,
        "position": 1,
        "seconds_ago": seconds_ago,
    }
    for kind, seconds_ago, event_id in (
        ("swapped", 3, "0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"),
        ("shown", 40, "8c1d5a52-3f0e-4f6b-8d0c-1b7a2e9c4d33"),
    )
]


class FeedbackRequest(Question):
    """What readers did."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": _SWAP}]})

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_BATCH, description="In any order.")


class CrawlRequest(Question):
    """What to crawl."""

    categories: Annotated[list[Slug], Field(min_length=1, max_length=MAX_BATCH)] | None = Field(
        None, description="Slugs of categories; null: all that a shop still has.", examples=[["science-fiction"]]
    )


SearchText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        pattern=f"^{_IN_LINE}*{_INKED}{_IN_LINE}*$",
        description="Words of a title or a description, a UPC, or the beginning of a word. Typos are forgiven.",
        examples=["lihgthouse keeper"],
    ),
]


class SearchQuery(_Narrowed):
    """What to search for, among which books, in which order, and which page of what is found."""

    q: SearchText
    limit: Limit = Field(20, description="How many on a page at most.")
    cursor: str | None = Field(None, pattern=PLACE, description=_CURSOR)
    category: Slug | None = Field(None, description=_CATEGORY)
    in_stock: bool | None = Field(None, description="Only books that can be bought, or only books that cannot.")
    sort: SearchSort = Field(
        "relevance",
        description="The order of what is found: the best first, or as GET /books has it.",
        json_schema_extra=_named(*get_args(SearchSort)),
    )

    @property
    def page(self) -> slice:
        """Which of the books found.

        Raises:
            Problem: 409, the cursor is of a page in another order, or of another search.
        """
        sort, start, mark = decode_place(self.cursor) if self.cursor is not None else (self.sort, 0, "")
        if sort != self.sort:
            raise problems.OtherOrder(sort)
        if not is_of(mark, self.filters(), self.q):
            raise problems.OtherFilters()
        return slice(start, start + self.limit)

    @property
    def units(self) -> int:
        """How many requests it counts as: one for each 200 characters of the text, and one for facets."""
        return math.ceil(len(self.q) / 200) + self.facets


_EXCLUDE = "`id`s of books that are not to be in the list, nor other editions of them: what the reader has."
_EXCLUDE_IN_ADDRESS = f"{_EXCLUDE} Once for each: `exclude=7&exclude=8`."


class PopularQuery(Question):
    """How long the list is to be."""

    limit: Limit = Field(10, description="How many at most.")


class ListQuery(Question):
    """What a list of recommendations is to be like."""

    limit: Limit = Field(10, description="How many at most.")
    category: Slug | None = Field(None, description=_CATEGORY)
    min_price: Amount | None = Field(None, description="At least this price, in the book's currency.", examples=[10])
    max_price: Amount | None = Field(None, description="At most this price, in the book's currency.", examples=[19.99])
    min_rating: Stars | None = Field(
        None, description="At least so many stars; books without stars are left out then.", examples=[4]
    )
    in_stock: bool = Field(
        True, description="Books that can be bought alone; `false`: those that are sold out may be in the list too."
    )
    exclude: list[Id] = Field(
        [],
        max_length=MAX_EXCLUDED_IN_ADDRESS,
        description=_EXCLUDE_IN_ADDRESS,
        examples=[[7, 8]],
    )
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NUMBER] = Field(
        0,
        description="0: the nearest books; towards 1 it counts more and more against a book that it is like one above "
        "it in the list.",
        examples=[0.3],
    )

    @property
    def units(self) -> int:
        """How many requests it counts as."""
        return 1 if self.diversity == 0 else 2

    def choice(self) -> Choice:
        filters = Filters(
            category=self.category,
            min_price=_exact(self.min_price),
            max_price=_exact(self.max_price),
            min_rating=self.min_rating,
            in_stock=self.in_stock or None,
        )
        return Choice(filters, self.limit, tuple(self.exclude), self.diversity)


def _exact(amount: float | None) -> Decimal | None:
    return Decimal(repr(amount)) if amount is not None else None


class _ListRequest(ListQuery):
    # Strict: `true` and "1" are no ids, and a client that sends them has a fault that it should hear of.
    model_config = ConfigDict(strict=True)

    exclude: list[Id] = Field([], max_length=MAX_EXCLUDED, description=_EXCLUDE, examples=[[7, 8]])


class BatchRequest(_ListRequest):
    """Which books to find neighbours for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"book_ids": [1, 2, 3], "limit": 10}]})

    book_ids: list[Id] = Field(
        min_length=1, max_length=MAX_BATCH, description="`id`s of known books.", examples=[[1, 2, 3]]
    )

    @property
    def units(self) -> int:
        """How many requests it counts as: one for each hundred books in lists, two where they are to be diverse."""
        return math.ceil(len(self.book_ids) * self.limit / 100) * super().units


class ReaderRequest(_ListRequest):
    """What a reader likes (`liked`), or what the next book is to be about (`text`): one of the two, not both."""

    # In words alone: of a `oneOf` beside properties, generators of clients make nothing, or leave the route out.
    model_config = ConfigDict(json_schema_extra={"examples": [{"liked": [1, 2], "limit": 10, "max_price": 19.99}]})

    # Examples of one would go into the same generated body as those of the other.
    liked: list[Id] | None = Field(
        None, min_length=1, max_length=MAX_BATCH, description="`id`s of known books; give either this or `text`."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT,
        pattern=_INKED,
        description="What the books are to be about, in any words; give either this or `liked`.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.liked is None) == (self.text is None):
            raise ValueError("Give either liked (ids of books) or text, one of the two.")
        return self
