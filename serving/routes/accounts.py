"""Accounts: register, log in, refresh, log out, another password, the account itself. Their answers are for nobody's
cache."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from bookclub_platform.core.token_keys import TOKEN_LIFE_S
from serving import problems
from serving.account_shapes import (
    Account,
    Farewell,
    LoginForm,
    Logout,
    NewPassword,
    RefreshRequest,
    Registration,
    TokenAnswer,
)
from serving.accounts import Grant
from serving.dependencies import TheAccounts, TheCaller
from serving.gate import ACCOUNT
from serving.guard import SignedIn, described, signed_in

IS_OPEN = True  # they are how one gets a token
UNAVAILABLE = ("database-unavailable", "busy")  # where a password is hashed

router = APIRouter(tags=["Accounts"], responses=problems.responses("database-unavailable"))


@router.post(
    "/register",
    summary="Make an account",
    status_code=201,
    responses=problems.responses(
        "weak-password", "registration-closed", "name-taken", 413, 415, "invalid-request", *UNAVAILABLE
    ),
)
async def register(asked: Registration, accounts: TheAccounts, caller: TheCaller, response: Response) -> TokenAnswer:
    """An account with the scopes read, export and feedback, logged in at once."""
    grant = await accounts.register(asked.username.lower(), asked.password, caller.address)
    return _answer(grant, response)


@router.post(
    "/login",
    summary="Log in",
    responses=problems.responses("invalid-scope", "wrong-credentials", 413, 415, "invalid-request", *UNAVAILABLE),
)
async def login(
    asked: Annotated[LoginForm, Form()], accounts: TheAccounts, caller: TheCaller, response: Response
) -> TokenAnswer:
    """OAuth2's password form, so that Authorize in /docs works: send `username` and `password` as a form, and in
    `scope` what the token shall be good for (all that the account has, if it is left out)."""
    grant = await accounts.login(asked.username.lower(), asked.password, asked.scope.split(), caller.address)
    return _answer(grant, response)


@router.post(
    "/token/refresh",
    summary="Get the next token",
    responses=problems.responses("refresh-refused", 413, 415, "invalid-request"),
)
async def refresh(asked: RefreshRequest, accounts: TheAccounts, caller: TheCaller, response: Response) -> TokenAnswer:
    """Takes a refresh token for a new pair of tokens of the same session; the access token before it stays good for
    its time. Keep the new one. If the answer got lost, ask again within 60 seconds: the same refresh token comes once
    more, with another access token. One that comes after that, or after its follower was used, was stolen from
    somebody, so its whole session ends, and the account has to log in again; so it has 30 days after the login in any
    case. JSON, where OAuth2 has a form."""
    return _answer(await accounts.refresh(asked.refresh_token, caller.address), response)


@router.post(
    "/logout",
    summary="Log out",
    status_code=204,
    response_class=Response,
    dependencies=[Depends(described)],
    openapi_extra={"security": [{}]},  # or no token at all
    responses=problems.responses(413, 415, "invalid-request"),
)
async def logout(request: Request, accounts: TheAccounts, caller: TheCaller, asked: Logout | None = None) -> None:
    """Ends a session: its refresh token at once, its access tokens within 5 seconds. Which one, `refresh_token` says,
    where it is sent; no access token is needed then, so that an app which was offline for a while logs out too, and one
    that is not good is answered 204 as well (RFC 7009). Else it is the session of the access token."""
    if asked is not None and asked.refresh_token is not None:
        await accounts.logout_by(asked.refresh_token, caller.address)
    else:
        await accounts.logout(await signed_in(request), caller.address)


@router.post(
    "/password",
    summary="Change the password",
    status_code=204,
    response_class=Response,
    responses=problems.responses("wrong-credentials", "weak-password", 413, 415, "invalid-request", *UNAVAILABLE),
)
async def change_password(asked: NewPassword, claims: SignedIn, accounts: TheAccounts, caller: TheCaller) -> None:
    """Ends every session of the account, this one too, as /logout does: refresh tokens at once, access tokens within 5
    seconds. Log in with the new password. `wrong-credentials` says that `old_password` is wrong; the token is good
    then, and stays so. `weak-password`: the new one is easy to guess, or is the old one."""
    await accounts.change_password(claims, asked.old_password, asked.new_password, caller.address)


@router.get(ACCOUNT, summary="One's own account", responses=problems.responses("wrong-credentials"))
async def get_account(claims: SignedIn, accounts: TheAccounts, response: Response) -> Account:
    """The account of the token."""
    response.headers["Cache-Control"] = "no-store"
    return Account.model_validate(await accounts.facts(claims))


@router.delete(
    ACCOUNT,
    summary="Delete the account",
    status_code=204,
    response_class=Response,
    responses=problems.responses("wrong-credentials", "last-administrator", 413, 415, "invalid-request"),
)
async def delete_account(asked: Farewell, claims: SignedIn, accounts: TheAccounts, caller: TheCaller) -> None:
    """For good, with the password: its name is free again, its sessions end as /logout ends one, and the feedback that
    it told is deleted. The only administrator cannot be deleted (409)."""
    await accounts.delete(claims, asked.password, caller.address)


def _answer(grant: Grant, response: Response) -> TokenAnswer:
    response.headers["Cache-Control"] = "no-store"
    return TokenAnswer(
        access_token=grant.access_token,
        expires_in=TOKEN_LIFE_S,
        refresh_token=grant.refresh_token,
        scope=" ".join(grant.scopes),
    )
