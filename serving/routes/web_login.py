"""Logging in to the web catalogue: name and password -> a cookie that is good for its pages, and for nothing else.

The cookie is HttpOnly, SameSite=Lax, for these pages alone, and Secure where the page came by https. A form that
another site sends is refused by what browsers say of where it comes from: nobody is logged in or out by somebody else.
"""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.responses import RedirectResponse

from serving.account_shapes import Password, Username
from serving.gate import COOKIE, PAGES, WEB_LOGIN
from serving.guard import TheAccounts, TheCaller
from serving.problems import Problem
from serving.tokens import WEB_LIFE_S
from serving.web.pages import page
from serving.web.route import WebRoute

IS_OPEN = True  # it is how a reader gets in

_PAGE = re.compile(f"{PAGES}(/[0-9]+)?([?][!-~]*)?", re.ASCII)
_WRONG = "Name and password do not belong together."


class _Login(BaseModel):
    username: Username
    password: Password
    next: str = PAGES


class _LoginRoute(WebRoute):
    """A form that is not filled in as it should be is as good as a wrong password."""

    async def told(self, request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError) and request.method == "POST":
            return _form(PAGES, fault=_WRONG, status=401)
        return await super().told(request, error)


router = APIRouter(route_class=_LoginRoute, include_in_schema=False)


@router.get(WEB_LOGIN)
async def show_login(
    accounts: TheAccounts, caller: TheCaller, following: Annotated[str, Query(alias="next")] = PAGES
) -> Response:
    if caller.claims is not None and await accounts.is_live(caller.claims, is_strict=False):
        return RedirectResponse(_ours(following), 303, {"Cache-Control": "no-store"})
    answer = _form(following)
    answer.delete_cookie(COOKIE, path=PAGES)  # of a session that has ended: what is open to all is open again
    return answer


@router.post(WEB_LOGIN)
async def log_in(
    request: Request, asked: Annotated[_Login, Form()], accounts: TheAccounts, caller: TheCaller
) -> Response:
    _refuse_others(request)
    try:
        cookie = await accounts.login_for_web(asked.username.lower(), asked.password, caller.address)
    except Problem as problem:
        if problem.status not in {400, 401}:
            raise
        fault = _WRONG if problem.status == 401 else "This account may not read."
        return _form(asked.next, asked.username, fault, 401)
    answer = RedirectResponse(_ours(asked.next), 303, {"Cache-Control": "no-store"})
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=WEB_LIFE_S,
        path=PAGES,
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/catalogue/logout")
async def log_out(request: Request, accounts: TheAccounts, caller: TheCaller) -> Response:
    _refuse_others(request)
    if caller.claims is not None:
        await accounts.logout(caller.claims, caller.address)
    answer = RedirectResponse(WEB_LOGIN, 303, {"Cache-Control": "no-store"})
    answer.delete_cookie(COOKIE, path=PAGES)
    return answer


def _form(following: str, username: str = "", fault: str = "", status: int = 200) -> Response:
    answer = page("login.html", status, next=_ours(following), username=username, fault=fault)
    answer.headers["Cache-Control"] = "no-store"
    answer.headers["Referrer-Policy"] = "same-origin"  # with none at all, browsers hide where the form comes from
    return answer


def _ours(address: str) -> str:
    """`address` if it is one of the catalogue's: a link to the login must not lead to somebody else's page."""
    return address if _PAGE.fullmatch(address) else PAGES


def _refuse_others(request: Request) -> None:
    """Raises:
    Problem: the form comes from another site.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    # Browsers send the second alone where there is no https; what is no browser sends neither, and has no cookie.
    is_ours = site == "same-origin" if site else origin is None or _host(origin) == _host(request.headers["host"])
    if not is_ours:
        raise Problem(403, "other-site", "The form comes from another site. Log in from the catalogue itself.")


def _host(origin: str) -> str:
    """Without the port, which a gateway may leave out."""
    return re.sub(":[0-9]+$", "", origin.rpartition("://")[2])
