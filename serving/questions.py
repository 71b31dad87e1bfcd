"""The shapes of the questions, as /docs shows them: query string or body -> checked values.

A parameter that does not exist is refused: a misspelt filter would otherwise be answered with too many books.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from bookclub_platform.core.accounts import USERNAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.cursor import MAX_ID, Cursor
from serving.lineup import Filters
from serving.neighbours import Choice

MAX_LIMIT = 100
MAX_BATCH = 100
MAX_EXCLUDED = 1000
MAX_TEXT = 10_000  # characters; the longest blurbs of shops have some thousands

BookId = Annotated[int, Field(ge=1, le=MAX_ID, description="The book's `id`.", examples=[1])]


class _Question(BaseModel):
    model_config = ConfigDict(extra="forbid")


Username = Annotated[
    str,
    Field(
        pattern=USERNAME,
        description=f"{USERNAME_RULE} Upper and lower case are the same.",
        examples=["ada@shop.example"],
    ),
]
Password = Annotated[
    str, Field(min_length=1, max_length=MAX_LENGTH, description="As it is.", examples=["four words of yours"])
]
FreshPassword = Annotated[
    str,
    Field(
        min_length=MIN_LENGTH,
        max_length=MAX_LENGTH,
        description=f"{MIN_LENGTH} to {MAX_LENGTH} characters, without the name in it.",
        examples=["five words of yours now"],
    ),
]


class Registration(_Question):
    """A new account."""

    username: Username
    password: FreshPassword


class LoginForm(BaseModel):
    """OAuth2's password form (RFC 6749, 4.3.2); the fields that a login does not need are there because clients send
    them."""

    grant_type: Literal["password", ""] = Field("password", description="`password`.")
    username: Username
    password: Password
    scope: str = Field(
        "",
        max_length=200,
        pattern="^[a-z ]*$",
        description="What the token shall be good for, separated by spaces; empty: all that the account may.",
        examples=["read export"],
    )
    client_id: str | None = Field(None, max_length=200, description="Not used.")
    client_secret: str | None = Field(None, max_length=200, description="Not used.")


class RefreshRequest(_Question):
    """A refresh token to take for the next pair."""

    refresh_token: str = Field(
        min_length=1,
        max_length=200,
        description="The newest that the session was given.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )


class NewPassword(_Question):
    """Another password for the account of the token."""

    old_password: Password
    new_password: FreshPassword


class BookQuery(_Question):
    """Which books, and which page of them."""

    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="How many on a page at most.")
    cursor: Cursor | None = Field(
        None, description="`next` of the page before; leave it out for the first page.", examples=["20"]
    )
    category: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",  # Postgres cannot even compare with a text that holds NUL
        description="Slug of a category, from /categories; one that does not exist has no books.",
        examples=["science-fiction"],
    )
    in_stock: bool | None = Field(None, description="Only books that can be bought, or only books that cannot.")


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is an integer to it, and some languages write integers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[int, Field(ge=1, le=MAX_ID), BeforeValidator(_whole)]
Price = Annotated[float, Field(ge=0, le=99_999_999.99, allow_inf_nan=False)]


class ListQuery(_Question):
    """What a list of recommendations is to be like."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), BeforeValidator(_whole)] = Field(
        10, description="How many at most."
    )
    category: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]+$",
        description="Books of this category alone: a slug from /categories.",
        examples=["science-fiction"],
    )
    min_price: Price | None = Field(None, description="At least this price, in the book's currency.", examples=[10])
    max_price: Price | None = Field(None, description="At most this price, in the book's currency.", examples=[19.99])
    min_rating: Annotated[int, Field(ge=1, le=5), BeforeValidator(_whole)] | None = Field(
        None, description="At least so many stars; books without stars are left out then.", examples=[4]
    )
    in_stock: bool = Field(
        True, description="Books that can be bought alone; `false`: those that are sold out may be in the list too."
    )
    exclude: list[Id] = Field(
        [],
        max_length=MAX_EXCLUDED,
        description="`id`s of books that are not to be in the list, nor other editions of them: what the reader has.",
        examples=[[7, 8]],
    )
    diversity: float = Field(
        0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="0: the nearest books; towards 1 it counts more and more against a book that it is like one above "
        "it in the list.",
        examples=[0.3],
    )

    @model_validator(mode="after")
    def _is_range(self) -> Self:
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise ValueError(f"min_price {self.min_price:g} is above max_price {self.max_price:g}: no price is both.")
        return self

    def choice(self) -> Choice:
        filters = Filters(self.category, self.min_price, self.max_price, self.min_rating, self.in_stock)
        return Choice(filters, self.limit, tuple(self.exclude), self.diversity)


class _ListRequest(ListQuery):
    # Strict: `true` and "1" are no ids, and a client that sends them has a fault that it should hear of.
    model_config = ConfigDict(strict=True)


class BatchRequest(_ListRequest):
    """Which books to find neighbours for."""

    book_ids: list[Id] = Field(
        min_length=1, max_length=MAX_BATCH, description="`id`s of known books.", examples=[[1, 2, 3]]
    )


class ReaderRequest(_ListRequest):
    """What a reader likes, or what the next book is to be about: one of the two."""

    # Examples of one would go into the same generated body as those of the other.
    liked: list[Id] | None = Field(
        None, min_length=1, max_length=MAX_BATCH, description="`id`s of known books; give either this or `text`."
    )
    text: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_TEXT,
        description="What the books are to be about, in any words; give either this or `liked`.",
    )

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.liked is None) == (self.text is None):
            raise ValueError("Give either liked (ids of books) or text, one of the two.")
        return self
