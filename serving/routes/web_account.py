"""Accounts in the web catalogue: a form -> a new account, a changed password, or a deleted account.

Without scripts, like all pages. Limits, rules and the audit log are those of /register, /password and DELETE /account.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from bookclub_platform.core.accounts import MAX_NAME, USERNAME_RULE
from bookclub_platform.core.passwords import MAX_LENGTH, MIN_LENGTH
from serving.access.callers import Caller
from serving.access.paths import PAGES, WEB_ACCOUNT, WEB_DELETE, WEB_REGISTER
from serving.access.tokens import Claims
from serving.dependencies import TheAccounts, TheCaller
from serving.http.problems import Problem
from serving.schemas.accounts import FreshPassword, Password, Username
from serving.web.forms import form, lead_to, refuse_others, sign_in, sign_out
from serving.web.pages import page_for
from serving.web.route import WebRoute, to_login

IS_OPEN = True  # registration needs no account; the other pages check the cookie themselves

_RULES = {
    "username": f"A name has {USERNAME_RULE}",
    "password": f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters.",
}
_DIFFERENT = "The two passwords differ."


class _Registration(BaseModel):
    username: Username
    password: FreshPassword
    again: str
    next: str = PAGES


class _PasswordChange(BaseModel):
    old_password: Password
    password: FreshPassword
    again: str


class _AccountDeletion(BaseModel):
    old_password: Password


class _AccountRoute(WebRoute):
    """Shows an error above the form, which keeps its values except for the passwords."""

    async def told(self, request: Request, error: Exception) -> Response:
        if not isinstance(error, RequestValidationError) or request.method != "POST":
            return await super().told(request, error)
        fields = [str(fault["loc"][-1]) for fault in error.errors()]
        fault = next((_RULES[field] for field in fields if field in _RULES), "Please fill in every field.")
        if request.scope["path"] == WEB_REGISTER:
            return _registration(request, fault, 422, sent=error.body)
        return await _account(request, fault, 422)


router = APIRouter(route_class=_AccountRoute, include_in_schema=False)


@router.get(WEB_REGISTER)
async def show_registration(
    request: Request, accounts: TheAccounts, following: Annotated[str, Query(alias="next")] = PAGES
) -> Response:
    if not accounts.is_registration_open:
        text = "Ask the operator of this catalogue for an account."
        return page_for(request, "fault.html", 403, title="Sign-up is closed", text=text)
    return _registration(request, sent={"next": following})


@router.post(WEB_REGISTER)
async def register(
    request: Request, asked: Annotated[_Registration, Form()], accounts: TheAccounts, caller: TheCaller
) -> Response:
    refuse_others(request)
    if asked.password != asked.again:
        return _registration(request, _DIFFERENT, 422, asked.model_dump())
    try:
        grant = await accounts.register(asked.username.lower(), asked.password, caller.address, ["read"])
    except Problem as problem:
        if problem.kind not in {"weak-password", "name-taken"}:
            raise
        return _registration(request, str(problem), problem.status, asked.model_dump())
    answer = lead_to(asked.next)
    sign_in(request, answer, accounts.cookie_of(grant))
    return answer


@router.get(WEB_ACCOUNT)
async def show_account(request: Request) -> Response:
    return await _account(request)


@router.post(WEB_ACCOUNT)
async def change_password(
    request: Request, asked: Annotated[_PasswordChange, Form()], accounts: TheAccounts, caller: TheCaller
) -> Response:
    refuse_others(request)
    claims = await _live(caller, accounts)
    if claims is None:
        return to_login(WEB_ACCOUNT)
    if asked.password != asked.again:
        return await _account(request, _DIFFERENT, 422)
    try:
        grant = await accounts.change_password_and_log_in(claims, asked.old_password, asked.password, caller.address)
    except Problem as problem:
        if problem.kind not in {"weak-password", "wrong-password"}:
            raise
        return await _account(request, str(problem), problem.status)
    answer = lead_to(f"{WEB_ACCOUNT}?changed")
    sign_in(request, answer, accounts.cookie_of(grant))
    return answer


@router.post(WEB_DELETE)
async def delete_account(
    request: Request, asked: Annotated[_AccountDeletion, Form()], accounts: TheAccounts, caller: TheCaller
) -> Response:
    refuse_others(request)
    claims = await _live(caller, accounts)
    if claims is None:
        return to_login(WEB_ACCOUNT)
    try:
        await accounts.delete(claims, asked.old_password, caller.address)
    except Problem as problem:
        if problem.kind not in {"last-administrator", "wrong-password"}:
            raise
        return await _account(request, str(problem), problem.status)
    answer = lead_to(PAGES)
    sign_out(answer)
    return answer


async def _live(caller: Caller, accounts: TheAccounts) -> Claims | None:
    claims = caller.claims
    return claims if claims is not None and await accounts.is_live(claims, is_strict=True) else None


async def _account(request: Request, fault: str = "", status: int = 200) -> Response:
    accounts, caller = request.state.accounts, request.state.caller
    claims = await _live(caller, accounts)
    if claims is None:
        return to_login(WEB_ACCOUNT)
    done = "Your password is changed. All other sessions are logged out." if "changed" in request.query_params else ""
    username = await accounts.username(claims)
    return form(request, "account.html", status, username=username, fault=fault, done="" if fault else done)


def _registration(request: Request, fault: str = "", status: int = 200, sent: Any = None) -> Response:
    known = {name: text for name in ("username", "next") if isinstance(text := (sent or {}).get(name), str)}
    following, username = known.get("next", PAGES), known.get("username", "")[:MAX_NAME]
    return form(request, "register.html", status, following, username=username, fault=fault)
