"""The shapes of the questions, as /docs shows them: query string or body -> checked values.

A parameter that does not exist is refused: a misspelt filter would otherwise be answered with too many books.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from bookclub_platform.core.accounts import USERNAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.cursor import MAX_ID, Cursor

MAX_LIMIT = 100
MAX_BATCH = 100

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


# Control characters say nothing, and Postgres cannot even compare with a text that holds NUL.
_ONE_LINE = r"^[^\x00-\x1f\x7f]+$"
_Price = Annotated[Decimal, Field(ge=0, max_digits=10, decimal_places=2)]


SearchText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        pattern=_ONE_LINE,
        description="Words of a title or a description, a UPC, or the beginning of a word. Typos are forgiven.",
        examples=["lihgthouse keeper"],
    ),
]


class SearchQuery(BaseModel):
    """What to search for, among which books, and which page of what is found."""

    model_config = ConfigDict(extra="forbid")

    q: SearchText
    limit: int = Field(20, ge=1, le=MAX_LIMIT, description="How many on a page at most.")
    cursor: str | None = Field(
        None,
        pattern=r"^[1-9][0-9]{0,3}$",
        description="`next` of the page before; leave it out for the first page.",
        examples=["20"],
    )
    category: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        pattern=_ONE_LINE,
        description="Slug of a category, from /categories; one that does not exist has no books.",
        examples=["science-fiction"],
    )
    min_price: _Price | None = Field(None, description="The lowest price; it counts as well.", examples=["10"])
    max_price: _Price | None = Field(None, description="The highest price; it counts as well.", examples=["19.99"])
    min_rating: int | None = Field(
        None, ge=1, le=5, description="The fewest stars; books that show none are left out then.", examples=[4]
    )
    in_stock: bool | None = Field(None, description="Only books that can be bought, or only books that cannot.")

    @property
    def start(self) -> int:
        """How many books stand before the page."""
        return int(self.cursor or 0)

    def filters(self) -> dict[str, Any]:
        return self.model_dump(exclude={"q", "limit", "cursor"})


class ListQuery(_Question):
    """How much of a list."""

    limit: int = Field(10, ge=1, le=MAX_LIMIT, description="How many at most.")


class BatchRequest(_Question):
    """Which books to find neighbours for."""

    # Strict: `true` and "1" are no ids, and a client that sends them has a fault that it should hear of.
    book_ids: list[Annotated[int, Field(strict=True, ge=1, le=MAX_ID)]] = Field(
        min_length=1, max_length=MAX_BATCH, description="`id`s of known books.", examples=[[1, 2, 3]]
    )
    limit: int = Field(10, strict=True, ge=1, le=MAX_LIMIT, description="How many for each book at most.")
