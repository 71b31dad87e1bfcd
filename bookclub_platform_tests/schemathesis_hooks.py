"""What schemathesis needs of us: a token for each request, and the id of a recommendation that was given out.
SCHEMATHESIS_HOOKS names this module, BOOKCLUB_TEST_API the address, and the account is `tester`; a logout gets a token
of its own, as it ends the one that it is sent with."""

from __future__ import annotations

import functools
import os
import re
from typing import Any

import httpx
import schemathesis
from pydantic import ValidationError
from schemathesis import AuthContext, Case, HookContext

from serving.schemas.requests import RECOMMENDATION_ID, ReaderRequest

NAME, PASSWORD = "tester", "four words of mine"


def login() -> str:
    answer = httpx.post(f"{os.environ['BOOKCLUB_TEST_API']}/login", data={"username": NAME, "password": PASSWORD})
    token: str = answer.raise_for_status().json()["access_token"]
    return token


_shared = functools.cache(login)


@schemathesis.auth(refresh_interval=None)
class Token:
    def get(self, case: Case, context: AuthContext) -> str:
        return login() if case.operation.path == "/logout" else _shared()

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        case.headers["authorization"] = f"Bearer {data}"


@functools.cache
def _given_out() -> str:
    headers = {"authorization": f"Bearer {_shared()}"}
    lists = httpx.get(f"{os.environ['BOOKCLUB_TEST_API']}/books/1/recommendations", headers=headers)
    told: str = lists.raise_for_status().json()["id"]
    return told


def _one_of_two(body: dict[str, Any]) -> None:
    liked, text = body.get("liked"), body.get("text")
    if liked is None and text is None:
        body["liked"] = [1]
    elif isinstance(liked, list) and isinstance(text, str) and _is_right(body):
        del body["text"]


def _is_right(body: dict[str, Any]) -> bool:
    try:
        ReaderRequest.model_validate(body | {"text": None})
        ReaderRequest.model_validate(body | {"liked": None})
    except ValidationError:
        return False
    return True


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """The schema cannot say which ids were given out: one of the right form becomes one that was. Nor does it say that
    `liked` and `text` are not to be both there, or neither: of two that are right by themselves one goes."""
    if not isinstance(case.body, dict):
        return
    if case.operation.path == "/recommendations":
        _one_of_two(case.body)
    if case.operation.path != "/feedback":
        return
    events = case.body.get("events")
    for event in events if isinstance(events, list) else []:
        told = event.get("recommendation_id") if isinstance(event, dict) else None
        if isinstance(told, str) and re.fullmatch(RECOMMENDATION_ID, told):
            event["recommendation_id"] = _given_out()
