"""Accounts: register, log in, refresh, log out, change the password, show and delete the account. Their responses must
not be cached."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from bookclub_platform.core.token_keys import TOKEN_LIFE_S
from serving.access.accounts import Grant
from serving.access.guard import SignedIn, described, signed_in
from serving.access.paths import ACCOUNT
from serving.dependencies import TheAccounts, TheCaller
from serving.http import problems
from serving.schemas.accounts import (
    Account,
    AccountDeletion,
    LoginForm,
    LogoutRequest,
    PasswordChange,
    RefreshRequest,
    RegistrationRequest,
    TokenResponse,
)

IS_OPEN = True  # clients get their tokens here
UNAVAILABLE = ("database-unavailable", "busy")  # for routes that hash a password

router = APIRouter(tags=["Accounts"], responses=problems.responses("database-unavailable"))


@router.post(
    "/register",
    summary="Register",
    status_code=201,
    responses=problems.responses(
        "weak-password", "registration-closed", "name-taken", 413, 415, "invalid-request", *UNAVAILABLE
    ),
)
async def register(
    asked: RegistrationRequest, accounts: TheAccounts, caller: TheCaller, response: Response
) -> TokenResponse:
    """Makes an account with the scopes read, export and feedback, and logs it in."""
    grant = await accounts.register(asked.username.lower(), asked.password, caller.address)
    return _answer(grant, response)


@router.post(
    "/login",
    summary="Log in",
    responses=problems.responses("invalid-scope", "wrong-credentials", 413, 415, "invalid-request", *UNAVAILABLE),
)
async def login(
    asked: Annotated[LoginForm, Form()], accounts: TheAccounts, caller: TheCaller, response: Response
) -> TokenResponse:
    """Send `username` and `password` as a form (OAuth2's password flow, so that Authorize in /docs works). `scope`
    limits the scopes of the token; without it, the token has all scopes of the account."""
    grant = await accounts.login(asked.username.lower(), asked.password, asked.scope.split(), caller.address)
    return _answer(grant, response)


@router.post(
    "/token/refresh",
    summary="Refresh the tokens",
    responses=problems.responses("refresh-refused", 413, 415, "invalid-request"),
)
async def refresh(asked: RefreshRequest, accounts: TheAccounts, caller: TheCaller, response: Response) -> TokenResponse:
    """Exchanges a refresh token for a new pair of tokens of the same session. Store the new refresh token: the old one
    is used up. The old access token stays valid until it expires. If the response got lost, send the same refresh token
    again within 60 seconds: you get the same new refresh token, with another access token. A refresh token that is sent
    after that, or after its successor was used, is treated as stolen: the whole session ends. A session ends 30 days
    after login in any case. The body is JSON, unlike in OAuth2."""
    return _answer(await accounts.refresh(asked.refresh_token, caller.address), response)


@router.post(
    "/logout",
    summary="Log out",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(described)],
    openapi_extra={"security": [{}]},  # the token is optional
    responses=problems.responses(413, 415, "invalid-request"),
)
async def logout(
    request: Request, accounts: TheAccounts, caller: TheCaller, asked: LogoutRequest | None = None
) -> None:
    """Ends a session: its refresh tokens at once, its access tokens within 5 seconds. With `refresh_token`, it is the
    session of that token; you need no access token then (so an app that was offline can log out), and an invalid one
    gets 204 as well (RFC 7009). Without it, it is the session of the access token."""
    if asked is not None and asked.refresh_token is not None:
        await accounts.logout_by(asked.refresh_token, caller.address)
    else:
        await accounts.logout(await signed_in(request), caller.address)


@router.post(
    "/password",
    summary="Change the password",
    status_code=204,
    response_class=Response,
    responses=problems.responses("wrong-password", "weak-password", 413, 415, "invalid-request", *UNAVAILABLE),
)
async def change_password(asked: PasswordChange, claims: SignedIn, accounts: TheAccounts, caller: TheCaller) -> None:
    """Ends all sessions of the account, this one included: refresh tokens at once, access tokens within 5 seconds. Log
    in with the new password. `wrong-password`: `old_password` is wrong; your tokens stay valid. `weak-password`: the
    new password is easy to guess, or is the old one."""
    await accounts.change_password(claims, asked.old_password, asked.new_password, caller.address)


@router.get(ACCOUNT, summary="Your account")
async def get_account(claims: SignedIn, accounts: TheAccounts, response: Response) -> Account:
    """The account of the token."""
    response.headers["Cache-Control"] = "no-store"
    return Account.model_validate(await accounts.facts(claims))


@router.delete(
    ACCOUNT,
    summary="Delete the account",
    status_code=204,
    response_class=Response,
    responses=problems.responses("wrong-password", "last-administrator", 413, 415, "invalid-request", *UNAVAILABLE),
)
async def delete_account(asked: AccountDeletion, claims: SignedIn, accounts: TheAccounts, caller: TheCaller) -> None:
    """Deletes the account and its feedback permanently; the password confirms it. Its sessions end as with /logout, and
    its name becomes free. The only administrator cannot be deleted (409)."""
    await accounts.delete(claims, asked.password, caller.address)


def _answer(grant: Grant, response: Response) -> TokenResponse:
    response.headers["Cache-Control"] = "no-store"
    return TokenResponse(
        access_token=grant.access_token,
        expires_in=TOKEN_LIFE_S,
        refresh_token=grant.refresh_token,
        scope=" ".join(grant.scopes),
    )
