"""The login of the web catalogue: name and password -> a cookie that is valid only for its pages."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.responses import RedirectResponse

from bookclub_platform.core.errors import DatabaseUnavailable
from serving.access.paths import PAGES, WEB_LOGIN
from serving.dependencies import TheAccounts, TheCaller
from serving.http.problem_kinds import KINDS
from serving.http.problems import Problem
from serving.schemas.accounts import Password, Username
from serving.web.forms import form, lead_to, refuse_others, sign_in, sign_out
from serving.web.pages import page_for
from serving.web.route import WebRoute

IS_OPEN = True  # readers log in here

_WRONG = KINDS["wrong-credentials"].detail


class _Login(BaseModel):
    username: Username
    password: Password
    next: str = PAGES


class _LoginRoute(WebRoute):
    """Treats an invalid form like a wrong password."""

    async def told(self, request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError) and request.method == "POST":
            return _form(request, PAGES, fault=_WRONG, status=401)
        return await super().told(request, error)


router = APIRouter(route_class=_LoginRoute, include_in_schema=False)


@router.get(WEB_LOGIN)
async def show_login(
    request: Request,
    accounts: TheAccounts,
    caller: TheCaller,
    following: Annotated[str, Query(alias="next")] = PAGES,
) -> Response:
    if caller.claims is not None and await accounts.is_live(caller.claims, is_strict=False):
        return lead_to(following)
    answer = _form(request, following)
    sign_out(answer)  # of an ended session, which would be refused even on pages that are open to all
    return answer


@router.post(WEB_LOGIN)
async def log_in(
    request: Request, asked: Annotated[_Login, Form()], accounts: TheAccounts, caller: TheCaller
) -> Response:
    refuse_others(request)
    try:
        grant = await accounts.login(asked.username.lower(), asked.password, ["read"], caller.address)
    except Problem as problem:
        if problem.status not in {400, 401}:
            raise
        fault = _WRONG if problem.status == 401 else "This account has no right to read."
        return _form(request, asked.next, asked.username, fault, 401)
    answer = lead_to(asked.next)
    sign_in(request, answer, accounts.cookie_of(grant))
    return answer


@router.post("/catalogue/logout")
async def log_out(request: Request, accounts: TheAccounts, caller: TheCaller) -> Response:
    refuse_others(request)
    answer: Response = RedirectResponse(WEB_LOGIN, 303, {"Cache-Control": "no-store"})
    try:
        if caller.claims is not None:
            await accounts.logout(caller.claims, caller.address)
    except DatabaseUnavailable:
        text = "You are logged out in this browser. The session itself could not be ended now: it ends by itself."
        answer = page_for(request, "fault.html", 503, title="Logged out here", text=text)
    sign_out(answer)
    return answer


def _form(request: Request, following: str, username: str = "", fault: str = "", status: int = 200) -> Response:
    return form(request, "login.html", status, following, username=username, fault=fault)
