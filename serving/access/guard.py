"""A caller and the scopes that a route needs -> the claims of the caller's token, or 401, or 403.

    router.get("/export", dependencies=[Security(guard, scopes=["export"])])

Every router needs `read` unless its file sets IS_OPEN, so that a new route is closed by default.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer, SecurityScopes

from bookclub_platform.core import audit
from bookclub_platform.core.accounts import SCOPES
from serving.access.accounts import Accounts, EndedSession
from serving.access.callers import Caller
from serving.access.tokens import Claims
from serving.http import problems

SCHEME = "OAuth2PasswordBearer"

# Without a refreshUrl: OAuth2 clients would send a form there, but ours takes JSON.
_DESCRIPTION = "`access_token` from POST /login, /register or /token/refresh, sent as `Authorization: Bearer ...`."
# Only for /docs, where people log in with it: callers.py reads the token, before it counts the request.
described = OAuth2PasswordBearer(
    tokenUrl="login", scopes=dict(SCOPES), scheme_name=SCHEME, description=_DESCRIPTION, auto_error=False
)


async def guard(request: Request, asked: SecurityScopes, _: Annotated[str | None, Depends(described)]) -> Claims | None:
    """The claims of the caller's token; None if there is no token and none is needed.

    Raises:
        Problem: 401 without a valid token, 403 if the token lacks a scope.
    """
    caller: Caller = request.state.caller
    if (problem := await refusal(caller, request.state.accounts, asked.scopes)) is not None:
        if "admin" in asked.scopes:
            user_id = caller.claims.user_id if caller.claims is not None else None
            audit.note("admin", "refused", address=caller.address, user_id=user_id, path=request.scope["path"])
        raise problem
    return caller.claims


async def refusal(caller: Caller, accounts: Accounts, scopes: list[str]) -> problems.Problem | None:
    """Why the caller may not use a route that needs these scopes; None if they may."""
    if caller.claims is None:
        if caller.fault is None and set(scopes) == {"read"} and not accounts.is_login_required:
            return None
        return _no_token(caller)
    if (problem := lacking(caller.claims, scopes)) is not None:
        return problem
    if not await accounts.is_live(caller.claims, is_strict="read" not in scopes):
        return EndedSession()
    return None


def lacking(claims: Claims, scopes: list[str]) -> problems.Problem | None:
    """The problem of a token that does not have all of these scopes; None if it has."""
    if not (missing := [scope for scope in scopes if scope not in claims.scopes]):
        return None
    return problems.Problem(
        "insufficient-scope",
        f"The token lacks the scope {' '.join(missing)}. If the account has it (see GET /account), log in again "
        "without `scope`; otherwise ask the operator for it.",
        headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'},
    )


async def signed_in(request: Request, _: Annotated[str | None, Depends(described)] = None) -> Claims:
    """The claims of the caller's token, whatever its scopes.

    Raises:
        Problem: 401 without a valid token.
    """
    claims = await guard(request, SecurityScopes([]), None)
    assert claims is not None, "guard returns None only for routes that ask for `read`"
    return claims


def _no_token(caller: Caller) -> problems.Problem:
    told = 'Bearer error="invalid_token"' if caller.fault else "Bearer"
    return problems.Problem(caller.fault_kind, caller.fault, headers={"WWW-Authenticate": told})


SignedIn = Annotated[Claims, Depends(signed_in)]
