"""Request models, as /docs shows them: query string or body -> validated values.

Unknown parameters are rejected: otherwise a misspelt filter would return too many books.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, Self, get_args
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from bookclub_platform.core.browse import IN_STOCK, Filters, SearchSort, Sort
from bookclub_platform.core.feedback import Kind
from bookclub_platform.export import Format
from serving.http import problems
from serving.http.digits import MAX_ID, NUMBER, WHOLE, Amount, Id, Price, Stars, StrictId
from serving.schemas.cursor import BY_ID, PLACE, Cursor, decode_place, is_of

MAX_LIMIT = 100
# Control characters have no meaning here, and Postgres cannot even compare with a text that contains NUL.
_IN_LINE = r"[^\x00-\x1f\x7f]"
ONE_LINE = f"^{_IN_LINE}+$"
# A character that is not whitespace. Spelt out: \s differs between languages, so clients could reject other texts.
INKED = r"[^\x00-\x20\x7f-\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
INKED_LINE = f"^{_IN_LINE}*{INKED}{_IN_LINE}*$"
DATA_VERSION = "^(0|[1-9][0-9]{0,15})$"
# tfidf_model/1@50: the model that recommended, and the data version.
RECOMMENDATION_ID = "^[A-Za-z0-9_.-]{1,64}/[0-9]{1,9}@[0-9]{1,15}$"
MAX_BATCH = 100
MAX_EXCLUDED = 1000
MAX_EXCLUDED_IN_ADDRESS = 200  # this many of the longest ids fit into a URL, along with everything else
MAX_TEXT = 10_000  # characters; the longest blurbs of shops have a few thousand

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE]


def _named(*values: str) -> dict[str, Any]:
    """Names of the values in generated clients, which would otherwise call `price` and `-price` PRICE and VALUE_1."""
    return {"x-enum-varnames": [value.lstrip("-").upper() + "_DOWN" * value.startswith("-") for value in values]}


class Choice(NamedTuple):
    """The options of a list."""

    filters: Filters = IN_STOCK
    limit: int = 10
    exclude: tuple[int, ...] = ()
    diversity: float = 0.0


class RequestModel(BaseModel):
    model_config = ConfigDict(extra="forbid")


Slug = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=ONE_LINE,
    ),
]


# No examples: no cursor, category or shop exists in every catalogue, and tools that send all examples at once, as /docs
# does, would find no books.
_CURSOR = "`next` of the previous page; leave it out for the first page."
_CATEGORY = "Slug of a category from GET /categories, such as `health`. An unknown category has no books."


class PageQuery(RequestModel):
    """Page, category and stock."""

    limit: Limit = Field(20, description="Maximum number of books on a page.")
    cursor: Cursor | None = Field(None, description=_CURSOR)
    category: Slug | None = Field(None, description=_CATEGORY)
    in_stock: bool | None = Field(None, description="`true`: only books in stock; `false`: only sold-out books.")


class _Narrowed(RequestModel):
    """Further filters."""

    source: Slug | None = Field(None, description="Only books of this `source`.")
    min_price: Price | None = Field(
        None, description="Minimum price (inclusive), in the book's own currency.", examples=[10]
    )
    max_price: Price | None = Field(
        None, description="Maximum price (inclusive), in the book's own currency.", examples=[19.99]
    )
    min_rating: Stars | None = Field(
        None, description="Minimum number of stars. Excludes books without stars.", examples=[4]
    )
    facets: bool = Field(False, description="Whether to return counts by category, stars, price and stock.")

    def filters(self) -> Filters:
        return Filters(**{name: getattr(self, name) for name in Filters._fields})


class BookQuery(_Narrowed, PageQuery):
    """Filters, order and page."""

    sort: Sort = Field(
        "id",
        description="Order of the books; `-` means descending. Books without stars come last. Titles are compared "
        "case-insensitively, by their first 100 characters.",
        json_schema_extra=_named(*get_args(Sort)),
    )


class SegmentQuery(RequestModel):
    """Page of the books of a segment."""

    limit: Limit = Field(20, description="Maximum number of books on a page.")
    cursor: str | None = Field(
        None,
        pattern=BY_ID,
        description=_CURSOR,
    )
    in_stock: bool | None = Field(None, description="`true`: only books in stock; `false`: only sold-out books.")


class ExportQuery(RequestModel):
    """What to export, in which format."""

    format: Format = Field(
        "ndjson",
        description="`ndjson`: one JSON object per line, as from GET /books/{book_id} plus `also_in`. `csv`: RFC 4180, "
        "with a header; null is an empty field. `parquet`: never gzipped.",
    )
    with_delisted: bool = Field(False, description="Whether to include delisted books.")
    after: Annotated[int, Field(ge=0, le=MAX_ID), WHOLE] = Field(
        0,
        description="To resume an interrupted export: `id` of the last complete book. Send the same `format` and "
        "`with_delisted` as before.",
    )
    data_version: str | None = Field(
        None,
        pattern=DATA_VERSION,
        description="To resume an interrupted export: `Bookclub-Data-Version` of the first part. If the data version "
        "has changed since, the parts do not fit together, and the response is 409.",
    )


class PredictRequest(RequestModel):
    """Which book to find similar books for."""

    model_config = ConfigDict(strict=True)

    book_id: Id = Field(description="`id` of an existing book.", examples=[1])
    limit: Limit = Field(10, description="Maximum number of books.")


class FeedbackEvent(RequestModel):
    """One action of one reader on one recommended book."""

    event_id: UUID = Field(
        description="Your own id of the event. An event that is sent twice counts once.",
        examples=["0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"],
    )
    kind: Kind = Field(
        description="`shown`: it was on the screen; `clicked`; `liked`; `swapped`: the reader took it and gave another "
        "book for it. Each is a separate event: a swapped book was shown before, so you can send `shown` as well.",
        examples=["clicked"],
    )
    recommendation_id: str = Field(
        pattern=RECOMMENDATION_ID,
        description="`id` of the response that recommended the book. It names the model and the data version. Old "
        "ones are accepted, also of models that were replaced or rolled back. 422 if that model has never answered "
        "here, or if that data version does not exist yet. The server does not check which reader got the response.",
        examples=["tfidf_model/1@50"],
    )
    book_id: StrictId = Field(
        description="The recommended book; with `swapped`, the one that the reader took.", examples=[12]
    )
    for_book_id: StrictId | None = Field(
        None,
        description="The book whose list contained it (not the one that the reader gave for it); null if the list was "
        "for several books or for a text.",
        examples=[1],
    )
    position: Annotated[int, Field(strict=True, ge=1, le=MAX_LIMIT), WHOLE] | None = Field(
        None, description="Position in the list, from 1.", examples=[1]
    )
    seconds_ago: Annotated[int, Field(strict=True, ge=0, le=30 * 24 * 3600), WHOLE] = Field(
        0,
        description="How many seconds ago it happened. Relative, so that wrong clocks of devices do not matter.",
        examples=[3],
    )

    reader: Annotated[str, Field(min_length=1, max_length=64, pattern=ONE_LINE)] | None = Field(
        None,
        description="Which reader did it, if one account sends events of many readers: a pseudonym, always the same "
        "for a reader, such as a random number. Only a hash of it is stored. Needs the scope `readers`, which the "
        "operator gives to a shop's server. Null: the account itself.",
        examples=[None, "c81e728d9d4c"],
    )


# The list of book 1 offered 12, and the reader gave their 1 for it.
_SWAP: list[JsonValue] = [
    {
        "event_id": event_id,
        "kind": kind,
        "recommendation_id": "tfidf_model/1@50",
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


class FeedbackRequest(RequestModel):
    """Actions of readers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"events": _SWAP}]})

    events: list[FeedbackEvent] = Field(min_length=1, max_length=MAX_BATCH, description="The events, in any order.")


class CrawlRequest(RequestModel):
    """What to crawl."""

    categories: Annotated[list[Slug], Field(min_length=1, max_length=MAX_BATCH)] | None = Field(
        None,
        description="Slugs of the categories to crawl; null: all that the shops still have.",
        examples=[["health"]],
    )


SearchText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        pattern=INKED_LINE,
        description="Words of titles or descriptions, or a UPC. Typos are tolerated; the last word may be incomplete.",
        examples=["lihgthouse keeper"],
    ),
]


class SearchQuery(_Narrowed):
    """Query, filters, order and page."""

    q: SearchText
    limit: Limit = Field(20, description="Maximum number of books on a page.")
    cursor: str | None = Field(None, pattern=PLACE, description=_CURSOR)
    category: Slug | None = Field(None, description=_CATEGORY)
    in_stock: bool | None = Field(None, description="`true`: only books in stock; `false`: only sold-out books.")
    sort: SearchSort = Field(
        "relevance",
        description="Order of the results: best match first, or as in GET /books.",
        json_schema_extra=_named(*get_args(SearchSort)),
    )

    @property
    def page(self) -> slice:
        """The slice of the search results for this page.

        Raises:
            Problem: 409, the cursor belongs to another order or another search.
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


_EXCLUDE = "`id`s of books to leave out, with all their editions, such as books that the reader already has."
_EXCLUDE_IN_ADDRESS = f"{_EXCLUDE} Repeat the parameter: `exclude=7&exclude=8`."


class PopularQuery(RequestModel):
    """Length of the list."""

    limit: Limit = Field(10, description="Maximum number of books.")


class ListQuery(RequestModel):
    """Filters and options of a list of recommendations."""

    limit: Limit = Field(10, description="Maximum number of books.")
    category: Slug | None = Field(None, description=_CATEGORY)
    min_price: Amount | None = Field(
        None, description="Minimum price (inclusive), in the book's own currency.", examples=[10]
    )
    max_price: Amount | None = Field(
        None, description="Maximum price (inclusive), in the book's own currency.", examples=[19.99]
    )
    min_rating: Stars | None = Field(
        None, description="Minimum number of stars. Excludes books without stars.", examples=[4]
    )
    in_stock: bool = Field(
        True, description="`true`: only books in stock; `false`: sold-out books as well (unlike in GET /books)."
    )
    exclude: list[Id] = Field(
        [],
        max_length=MAX_EXCLUDED_IN_ADDRESS,
        description=_EXCLUDE_IN_ADDRESS,
        examples=[[7, 8]],
    )
    diversity: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NUMBER] = Field(
        0,
        description="0: the most similar books. The closer to 1, the less the books in the list resemble each other.",
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
    # Strict: `true` and "1" are not ids, and a client that sends them has a bug that should be reported to it.
    model_config = ConfigDict(strict=True)

    exclude: list[Id] = Field([], max_length=MAX_EXCLUDED, description=_EXCLUDE, examples=[[7, 8]])


class BatchRequest(_ListRequest):
    """Which books to find similar books for."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"book_ids": [1, 2, 3], "limit": 10}]})

    book_ids: list[Id] = Field(
        min_length=1, max_length=MAX_BATCH, description="`id`s of existing books.", examples=[[1, 2, 3]]
    )

    @property
    def units(self) -> int:
        """How many requests it counts as: one for each hundred books in lists, two with `diversity`."""
        return math.ceil(len(self.book_ids) * self.limit / 100) * super().units


class ReaderRequest(_ListRequest):
    """Either books that the reader likes (`liked`), or what the next book should be about (`text`)."""

    # Only described in words: client generators ignore a `oneOf` beside properties, or leave the route out.
    model_config = ConfigDict(json_schema_extra={"examples": [{"liked": [1, 2], "limit": 10, "max_price": 19.99}]})

    # No examples: tools would put the examples of both fields into one generated body.
    liked: list[Id] | None = Field(
        None, min_length=1, max_length=MAX_BATCH, description="`id`s of existing books. Send either this or `text`."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT,
        pattern=INKED,
        description="What the books should be about, in any words. Send either this or `liked`.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.liked is None) == (self.text is None):
            raise ValueError("Send exactly one of: liked (ids of books), text.")
        return self
