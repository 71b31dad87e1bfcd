"""What schemathesis needs of us: a token for each request. SCHEMATHESIS_HOOKS names this module, BOOKCLUB_TEST_API the
address, and the account is `tester`; a logout gets a token of its own, as it ends the one that it is sent with."""

from __future__ import annotations

import functools
import os

import httpx
import schemathesis
from schemathesis import AuthContext, Case

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
