"""The shapes of what is asked and answered about accounts, as /docs shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bookclub_platform.core.accounts import USERNAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.questions import Question
from serving.schemas import Answer, Few

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
        description=f"{MIN_LENGTH} to {MAX_LENGTH} characters, without the name in it, and none of those that are "
        "guessed first. Spaces and all scripts are welcome.",
        examples=["five words of yours now"],
    ),
]


class Registration(Question):
    """A new account."""

    username: Username
    password: Annotated[FreshPassword, Field(examples=["four words of yours"])]


class LoginForm(BaseModel):
    """OAuth2's password form (RFC 6749, 4.3.2); the fields that a login does not need are there because clients send
    them."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"grant_type": "password", "username": "ada@shop.example", "password": "four words of yours"}]
        }
    )

    grant_type: Literal["password", ""] = Field(
        "password",
        description="`password`, or left out.",
        json_schema_extra={"x-enum-varnames": ["PASSWORD", "LEFT_OUT"]},
    )
    username: Username
    password: Password
    scope: str = Field(
        "",
        max_length=200,
        pattern="^[a-z ]*$",
        description="What the token shall be good for, separated by spaces; empty: all that the account may. What the "
        "account may not is left out without a word: see `scope` of the answer.",
        examples=["read export"],
    )
    client_id: str | None = Field(None, max_length=200, description="Not used.")
    client_secret: str | None = Field(None, max_length=200, description="Not used.")


class RefreshRequest(Question):
    """A refresh token to take for the next pair."""

    refresh_token: str = Field(
        min_length=1,
        max_length=200,
        description="The newest that the session was given.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )


class Logout(Question):
    """The session to end."""

    refresh_token: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Any that the session was given; null: the session of the access token.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )


class Farewell(Question):
    """That it is the owner who has the account deleted."""

    password: Password


class NewPassword(Question):
    """Another password for the account of the token."""

    old_password: Password
    new_password: FreshPassword


class Account(Answer):
    """The account of the token."""

    username: str = Field(description="As one logs in, in lower case.", examples=["ada@shop.example"])
    scopes: list[str] = Field(
        description="What its tokens may be good for; this token may be good for less.",
        examples=[["read", "export", "feedback"]],
    )
    created_at: datetime = Field(description="Since when there is the account, UTC.")
    sessions: int = Field(description="How many of its sessions are open, this one among them.", examples=[2])


class TokenAnswer(Answer):
    """Somebody is logged in."""

    access_token: str = Field(description="Send it as `Authorization: Bearer ...`.", examples=["eyJhbGciOiJIUzI1NiJ9"])
    token_type: Literal["bearer"] = Field("bearer", description="Nothing else.")
    expires_in: Few = Field(description="Seconds for which the access token is good, from now.", examples=[600])
    refresh_token: str = Field(
        description="Take it to /token/refresh for the next pair, any time within 30 days of the login.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )
    scope: str = Field(
        description="What the tokens are good for, separated by spaces.", examples=["read export feedback"]
    )
