"""What an app does with its reader's account: sees it, logs out late, ends it; and what signing up costs a crowd."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform.core import accounts, passwords
from bookclub_platform.core.feedback import Event, add_events, feedback
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests import test_accounts
from bookclub_platform_tests.api_fixtures import problem
from bookclub_platform_tests.test_accounts import NOWHERE, PASSWORD, bearer, books, login, refresh, register
from bookclub_platform_tests.test_web_login import cookie_of, send
from serving.access.callers import COOKIE
from serving.access.paths import PAGES, WEB_ACCOUNT, WEB_DELETE
from serving.access.tokens import TokenRefused, Tokens
from serving.app import create_app

heard = test_accounts.heard
OTHER = "five words of mine now"


@pytest.fixture(scope="module")
def client(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    for category, some in given.catalogue().items():
        given.load(database_url, category, some)
    settings = given.settings(tmp_path_factory.mktemp("home"), require_login=True, model_poll_s=60)
    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        yield client


def delete(client: httpx.Client, answer: Any, password: str = PASSWORD) -> httpx.Response:
    return client.request("DELETE", "/account", json={"password": password}, headers=bearer(answer))


def administrator(database_url: str, name: str) -> None:
    with sa.create_engine(database_url).begin() as connection:
        accounts.add_user(connection, name, passwords.hash_password(PASSWORD), list(accounts.SCOPES))


# Logging out ----------------------------------------------------------------------------------------------------------


def test_an_app_that_was_offline_logs_out_with_its_refresh_token_alone(
    client: httpx.Client, heard: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = register(client, "offline")

    def expired(*_: Any) -> None:
        raise TokenRefused("The access token has expired.", "expired-token")

    with monkeypatch.context() as patch:
        patch.setattr(Tokens, "read", expired)
        assert problem(client.post("/logout", headers=bearer(token)), 401)["type"].endswith(":expired-token")
        body = {"refresh_token": token["refresh_token"]}
        assert client.post("/logout", json=body, headers=bearer(token)).status_code == 204
    problem(refresh(client, token["refresh_token"]), 401)
    problem(books(client, token["access_token"]), 401)
    assert [json.loads(line)["act"] for line in heard.messages if '"logout"' in line] == ["logout"]
    assert client.post("/logout", json=body).status_code == 204, "RFC 7009: what is no good any more is no error"
    assert client.post("/logout", json={"refresh_token": "nothing"}).status_code == 204


def test_a_refresh_token_that_was_used_ends_its_session_and_no_other(client: httpx.Client) -> None:
    first, other = register(client, "phone"), login(client, "phone").json()
    second = refresh(client, first["refresh_token"]).json()
    assert client.post("/logout", json={"refresh_token": first["refresh_token"]}).status_code == 204
    problem(refresh(client, second["refresh_token"]), 401)
    assert refresh(client, other["refresh_token"]).is_success


@pytest.mark.parametrize("body", [{}, {"refresh_token": None}])
def test_without_a_refresh_token_a_logout_is_that_of_the_access_token(client: httpx.Client, body: Any) -> None:
    token = register(client, f"plain{len(body)}")
    problem(client.post("/logout", json=body), 401)
    assert client.post("/logout", json=body, headers=bearer(token)).status_code == 204
    problem(refresh(client, token["refresh_token"]), 401)


# Another password -----------------------------------------------------------------------------------------------------


def test_tokens_of_other_sessions_end_with_the_password_as_with_a_logout(client: httpx.Client) -> None:
    here = register(client, "switcher")
    there = login(client, "switcher").json()
    assert books(client, here["access_token"]).is_success and books(client, there["access_token"]).is_success
    body = {"old_password": PASSWORD, "new_password": OTHER}
    assert client.post("/password", json=body, headers=bearer(here)).status_code == 204
    for token in (here, there):
        problem(books(client, token["access_token"]), 401)


@pytest.mark.parametrize(
    ("old", "new"),
    [(PASSWORD, PASSWORD), ("caf\u00e9 cr\u00e8me br\u00fbl\u00e9e", "cafe\u0301 cre\u0300me bru\u0302le\u0301e")],
)
def test_a_new_password_is_not_the_old_one(client: httpx.Client, old: str, new: str) -> None:
    token = register(client, f"same{len(new)}", old)
    answer = client.post("/password", json={"old_password": old, "new_password": new}, headers=bearer(token))
    body = problem(answer, 403)
    assert body["type"].endswith(":weak-password") and "same as the old one" in body["detail"]
    assert refresh(client, token["refresh_token"]).is_success, "no session has ended"


# The account ----------------------------------------------------------------------------------------------------------


def test_an_account_is_told_what_is_kept_of_it(client: httpx.Client) -> None:
    token = register(client, "Curious")
    login(client, "curious")
    over = login(client, "curious").json()
    client.post("/logout", headers=bearer(over))
    narrow = login(client, "curious", scope="feedback").json()
    answer = client.get("/account", headers=bearer(narrow))
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert time.time() - datetime.fromisoformat(told.pop("created_at")).timestamp() < 60
    assert told == {"username": "curious", "scopes": ["read", "export", "feedback"], "sessions": 3}
    problem(client.get("/account"), 401)
    assert token["scope"] == "read export feedback"


def test_a_deleted_account_leaves_nothing_and_its_name_is_free(
    client: httpx.Client, database_url: str, heard: pytest.LogCaptureFixture
) -> None:
    here = register(client, "goodbye")
    there = login(client, "goodbye").json()
    book_id = books(client, here["access_token"]).json()["items"][0]["id"]
    with sa.create_engine(database_url).begin() as connection:
        user = accounts.find_user(connection, "goodbye")
        assert user is not None
        event = Event(uuid4(), "liked", "tfidf_model", "1", 1, book_id, None, 1, datetime.now(UTC))
        add_events(connection, user.id, [event])
    assert problem(delete(client, here, "not my password"), 403)["type"].endswith(":wrong-password")
    assert refresh(client, there["refresh_token"]).is_success
    assert delete(client, here).status_code == 204
    problem(client.get("/account", headers=bearer(here)), 401)
    problem(login(client, "goodbye"), 401)
    for table, column in ((accounts.users, "id"), (accounts.sessions, "user_id"), (feedback, "user_id")):
        assert not given.read(database_url, sa.select(table).where(table.c[column] == user.id))
    acts = [json.loads(line) for line in heard.messages if "delete-account" in line]
    assert [(line["outcome"], line["user_id"]) for line in acts] == [("refused", user.id), ("done", user.id)]
    assert PASSWORD not in heard.text
    event_id = str(uuid4())
    told = {"events": [{"event_id": event_id, "kind": "liked", "recommendation_id": "m/1@1", "book_id": book_id}]}
    problem(client.post("/feedback", json=told, headers=bearer(there)), 401)
    register(client, "goodbye")


def test_the_only_administrator_stays_and_is_told_how_to_make_another(client: httpx.Client, database_url: str) -> None:
    administrator(database_url, "first-boss")
    first = login(client, "first-boss").json()
    body = problem(delete(client, first), 409)
    assert body["type"].endswith(":last-administrator") and "bookclub users add NAME --admin" in body["detail"]
    administrator(database_url, "second-boss")
    second = login(client, "second-boss").json()
    assert delete(client, first).status_code == 204
    problem(delete(client, second), 409)


def test_a_reader_deletes_the_account_in_a_form_of_the_catalogue(client: httpx.Client) -> None:
    register(client, "formal")
    cookie = {"cookie": f"{COOKIE}={cookie_of(send(client, username='formal'))}"}
    assert f'action="{WEB_DELETE}"' in client.get(WEB_ACCOUNT, headers=cookie).text
    forged = client.post(WEB_DELETE, data={"old_password": PASSWORD}, headers=cookie | {"sec-fetch-site": "cross-site"})
    assert forged.status_code == 403
    wrong = client.post(WEB_DELETE, data={"old_password": "wrong words"}, headers=cookie)
    assert wrong.status_code == 403 and "current password is wrong" in wrong.text
    done = client.post(WEB_DELETE, data={"old_password": PASSWORD}, headers=cookie)
    assert (done.status_code, done.headers["location"]) == (303, PAGES) and f'{COOKIE}=""' in done.headers["set-cookie"]
    client.cookies.clear()
    problem(login(client, "formal"), 401)
    assert client.get(WEB_ACCOUNT, headers=cookie).status_code == 303


# Signing up -----------------------------------------------------------------------------------------------------------


def test_a_refused_sign_up_costs_no_account_of_those_behind_the_same_address(database_url: str, tmp_path: Path) -> None:
    settings = given.settings(tmp_path, registrations_per_hour=2, logins_per_minute=2, model_poll_s=60)

    def sign_up(name: str, password: str = PASSWORD) -> httpx.Response:
        return client.post("/register", json={"username": name, "password": password})

    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        for path in ("/register", "/login", "/password"):
            for method in ("GET", "HEAD", "OPTIONS", "PUT"):
                assert [client.request(method, path).status_code for _ in range(3)] == [405] * 3, path
        assert sign_up("crowd-1").status_code == 201
        refused = [sign_up("crowd-1"), sign_up("crowd-2", "password1234"), sign_up("crowd-2", "short"), sign_up("?")]
        assert [answer.status_code for answer in refused * 2] == [409, 403, 422, 422] * 2
        assert sign_up("crowd-2").status_code == 201
        beyond = sign_up("crowd-3")
        assert problem(beyond, 429)["violated-policies"] == ["register"] and '"register"' in beyond.headers["ratelimit"]
        tries = [sign_up("crowd-1", "password1234") for _ in range(20)]
        assert problem(tries[-1], 429)["violated-policies"] == ["register-tries"], "names are not listed without end"


def test_of_a_path_with_two_methods_both_are_named(client: httpx.Client) -> None:
    answer = client.put("/account")
    assert problem(answer, 405)["detail"].endswith("only GET, HEAD, DELETE.")
    assert answer.headers["allow"] == "GET, HEAD, DELETE"
    assert client.put(WEB_ACCOUNT).headers["allow"] == "GET, HEAD, POST"
    assert client.put("/logout").headers["allow"] == "POST"
