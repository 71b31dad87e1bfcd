"""Request and response models of the account routes, as /docs shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bookclub_platform.core.accounts import USERNAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.schemas.books import Few, ResponseModel
from serving.schemas.requests import RequestModel

SCOPES = "^[a-z ]*$"

Username = Annotated[
    str,
    Field(
        pattern=USERNAME,
        description=f"{USERNAME_RULE} Case-insensitive.",
        examples=["ada@shop.example"],
    ),
]
Password = Annotated[
    str, Field(min_length=1, max_length=MAX_LENGTH, description="The password.", examples=["four words of yours"])
]
FreshPassword = Annotated[
    str,
    Field(
        min_length=MIN_LENGTH,
        max_length=MAX_LENGTH,
        description=f"{MIN_LENGTH} to {MAX_LENGTH} characters. It must not contain the name and must not be easy to "
        "guess. Spaces and all scripts are allowed.",
        examples=["five words of yours now"],
    ),
]


class RegistrationRequest(RequestModel):
    """A new account."""

    username: Username
    password: Annotated[FreshPassword, Field(examples=["four words of yours"])]


class LoginForm(BaseModel):
    """OAuth2's password form (RFC 6749, 4.3.2). Unused fields are accepted because clients send them."""

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
        pattern=SCOPES,
        description="Scopes that the token should have, separated by spaces; empty: all scopes of the account. Scopes "
        "that the account lacks are left out; see `scope` of the response.",
        examples=["read export"],
    )
    client_id: str | None = Field(None, max_length=200, description="Not used.")
    client_secret: str | None = Field(None, max_length=200, description="Not used.")


class RefreshRequest(RequestModel):
    """A refresh token to exchange for the next pair."""

    refresh_token: str = Field(
        min_length=1,
        max_length=200,
        description="The newest refresh token of the session.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )


class LogoutRequest(RequestModel):
    """The session to end."""

    refresh_token: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Any refresh token of the session to end; null: the session of the access token.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )


class AccountDeletion(RequestModel):
    """Confirmation that the owner deletes the account."""

    password: Password


class PasswordChange(RequestModel):
    """A new password for the account of the token."""

    old_password: Password
    new_password: FreshPassword


class Account(ResponseModel):
    """The account of the token."""

    username: str = Field(description="Name of the account, in lower case.", examples=["ada@shop.example"])
    scopes: list[str] = Field(
        description="Scopes of the account; this token may have fewer.",
        examples=[["read", "export", "feedback"]],
    )
    created_at: datetime = Field(description="When the account was made.")
    sessions: int = Field(
        description="Number of logins of the last 30 days that were not logged out, this one included.", examples=[2]
    )


class TokenResponse(ResponseModel):
    """Tokens of a session."""

    access_token: str = Field(description="Send it as `Authorization: Bearer ...`.", examples=["eyJhbGciOiJIUzI1NiJ9"])
    token_type: Literal["bearer"] = Field("bearer", description="Always `bearer`.")
    expires_in: Few = Field(description="Seconds until the access token expires.", examples=[600])
    refresh_token: str = Field(
        description="Exchange it at POST /token/refresh for the next pair, within 30 days after the login.",
        examples=["JbU6Yv6oCkP0zq9s6U0eW9sYb4wL1mXo3cQkq9r0a7E"],
    )
    scope: str = Field(description="Scopes of the tokens, separated by spaces.", examples=["read export feedback"])
