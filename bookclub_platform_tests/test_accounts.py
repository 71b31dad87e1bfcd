"""Accounts over real HTTP, on a real Postgres: who gets a token, what it opens, and how it ends."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher, extract_parameters
from fastapi import Security

from bookclub_platform.core import accounts, passwords
from bookclub_platform.core.token_keys import KeyRing
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import problem
from serving.access import accounts as serving_accounts
from serving.access import policies
from serving.access.guard import guard
from serving.access.quotas import Quota
from serving.app import create_app

PASSWORD = "four words of mine"
NOWHERE = "http://127.0.0.1:1"
_settings: dict[str, Any] = {}


@pytest.fixture(scope="module")
def client(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API where every data route asks for a token, with one route for administrators."""
    for category, books in given.catalogue().items():
        given.load(database_url, category, books)
    settings = given.settings(tmp_path_factory.mktemp("home"), require_login=True, model_poll_s=60)
    _settings.update(settings=settings, database_url=database_url)
    app = create_app(settings, database_url, NOWHERE)

    async def for_admins() -> None:
        pass

    app.add_api_route("/for-admins", for_admins, dependencies=[Security(guard, scopes=["admin"])])
    with pytest.MonkeyPatch.context() as patch, given.serving(app) as client:
        patch.setattr(serving_accounts, "LIVE_FOR_S", 0.5)
        yield client


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="bookclub.audit")
    return caplog


def register(client: httpx.Client, name: str, password: str = PASSWORD) -> Any:
    answer = client.post("/register", json={"username": name, "password": password})
    assert answer.status_code == 201, answer.text
    return answer.json()


def login(client: httpx.Client, name: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
    return client.post("/login", data={"username": name, "password": password, **fields})


def refresh(client: httpx.Client, token: str) -> httpx.Response:
    return client.post("/token/refresh", json={"refresh_token": token})


def books(client: httpx.Client, token: str | None) -> httpx.Response:
    return client.get("/books", headers={"authorization": f"Bearer {token}"} if token else {})


def bearer(answer: Any) -> dict[str, str]:
    return {"authorization": f"Bearer {answer['access_token']}"}


def wait_a_live_time() -> None:
    time.sleep(serving_accounts.LIVE_FOR_S + 0.2)


def test_who_registers_is_logged_in_and_reads(client: httpx.Client) -> None:
    answer = register(client, "Ada")
    assert (answer["token_type"], answer["scope"], answer["expires_in"]) == ("bearer", "read export feedback", 600)
    assert books(client, answer["access_token"]).json()["total"] == 48
    again = login(client, "aDA")
    assert again.headers["cache-control"] == "no-store"
    assert books(client, again.json()["access_token"]).is_success


def test_without_a_token_every_data_route_is_closed_and_the_probes_are_open(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method in operations:
            answer = client.request(method, path.replace("{book_id}", "1"))
            if path in {"/health", "/ready", "/metrics", "/register", "/login", "/token/refresh"}:
                assert answer.status_code in {200, 415, 422, 503}, path
            else:
                assert problem(answer, 401)["type"] == "tag:bookclub,2026:no-token", path
                assert answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/catalogue").headers["location"].startswith("/catalogue/login")


@pytest.mark.parametrize(("name", "password"), [("grace", "not her password"), ("nobody-such", PASSWORD)])
def test_a_wrong_password_and_an_unknown_name_get_the_same_answer(
    client: httpx.Client, name: str, password: str
) -> None:
    if name == "grace":
        register(client, name)
    answer = login(client, name, password)
    body = problem(answer, 401)
    assert body["detail"] == "Wrong name or password."
    assert set(answer.headers) >= {"www-authenticate"}


def test_an_unknown_name_costs_what_a_known_one_costs(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One comparison, which is nearly all of the time that an answer takes, with the parameters of today."""
    register(client, "known")
    compared: list[str] = []
    verify = PasswordHasher.verify

    def noted(hasher: PasswordHasher, kept: str, password: str) -> bool:
        compared.append(kept)
        return verify(hasher, kept, password)

    monkeypatch.setattr(PasswordHasher, "verify", noted)
    for name in ("known", "unknown"):
        assert login(client, name, "not the password").status_code == 401
    assert len(compared) == 2 and compared[0] != compared[1] == passwords.NOBODY
    today = extract_parameters(passwords.hash_password(PASSWORD))
    assert [extract_parameters(kept) for kept in compared] == [today, today]


def test_a_disabled_account_is_told_nothing_else_and_its_tokens_end(client: httpx.Client) -> None:
    answer = register(client, "gone")
    assert books(client, answer["access_token"]).is_success
    with sa.create_engine(_settings["database_url"]).begin() as connection:
        user = accounts.find_user(connection, "gone")
        assert user is not None
        accounts.disable_user(connection, user.id)
    assert problem(login(client, "gone"), 401)["detail"] == "Wrong name or password."
    problem(refresh(client, answer["refresh_token"]), 401)
    wait_a_live_time()
    assert "has ended" in problem(books(client, answer["access_token"]), 401)["detail"]


def test_a_taken_name_is_refused_whatever_its_case(client: httpx.Client) -> None:
    register(client, "taken")
    again = client.post("/register", json={"username": "TAKEN", "password": PASSWORD})
    problem(again, 409)


@pytest.mark.parametrize(
    ("password", "status"),
    [
        ("short", 422),
        ("aaaaaaaaaaaaaaaa", 403),
        ("weakling-WEAKLING", 403),
        ("password1234", 403),
        ("P@ssw0rd1234!", 403),
        ("qwertyuiop12345", 403),
        ("bookclub2026", 403),
        ("klingkling99", 403),
        ("drowssapdrowssap", 403),
        ("abcdefghijklmnopqrstuvwxyz", 403),
        ("\u0000", 422),
        ("x" * 257, 422),
        ("\ud800" * 12, 422),
    ],
)
def test_a_weak_or_impossible_password_is_refused(client: httpx.Client, password: str, status: int) -> None:
    name = "kling@shop.example" if "kling99" in password else "weakling"
    body = json.dumps({"username": name, "password": password})
    problem(client.post("/register", content=body, headers={"content-type": "application/json"}), status)


@pytest.mark.parametrize("password", ["12 drummers? no, 11", "zjx9qkw2vbnr", "Ψηλά βουνά γύρω μου"])
def test_any_mixture_that_is_hard_to_guess_is_a_password(password: str) -> None:
    assert passwords.weakness("ada", password) is None


def test_no_password_takes_long_to_judge() -> None:
    started = time.process_time()
    for password in ("4@8({[<369&#!1/|0$5+7%2" * 11, "1" * 256, "1/1/2001 " * 28):
        passwords.weakness("ada", password)
    assert time.process_time() - started < 1  # 0.8 s for the first alone, were all of it looked at


def test_a_password_counts_the_same_however_a_keyboard_writes_it(client: httpx.Client) -> None:
    register(client, "rene", "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e")
    assert login(client, "rene", "cafe\u0301 cre\u0300me bru\u0302le\u0301e").is_success


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in which a refresh may be repeated is over at once."""
    monkeypatch.setattr(serving_accounts, "REPEATED_WITHIN", timedelta(0))


def test_a_refresh_token_whose_follower_was_used_ends_the_session(
    client: httpx.Client, heard: pytest.LogCaptureFixture
) -> None:
    first = register(client, "fresh")
    second = refresh(client, first["refresh_token"]).json()
    third = refresh(client, second["refresh_token"]).json()
    assert books(client, third["access_token"]).is_success
    other = login(client, "fresh").json()
    problem(refresh(client, first["refresh_token"]), 401)
    assert '"why": "reused"' in heard.messages[-1]
    problem(refresh(client, third["refresh_token"]), 401)
    assert refresh(client, other["refresh_token"]).is_success, "another session of the account is not ended with it"
    assert books(client, third["access_token"]).status_code == 401


def test_who_lost_the_answer_to_a_refresh_asks_again_and_goes_on(
    client: httpx.Client, heard: pytest.LogCaptureFixture
) -> None:
    first = register(client, "tunnel")
    lost = refresh(client, first["refresh_token"]).json()
    again = refresh(client, first["refresh_token"]).json()
    assert again["refresh_token"] == lost["refresh_token"] != first["refresh_token"]
    assert books(client, again["access_token"]).is_success
    assert '"why": "repeated"' in heard.messages[-1]
    assert refresh(client, again["refresh_token"]).is_success
    problem(refresh(client, first["refresh_token"]), 401)


def test_a_lost_answer_is_repeated_after_the_keys_were_changed_too(client: httpx.Client) -> None:
    first = register(client, "changed")
    lost = refresh(client, first["refresh_token"]).json()
    KeyRing(_settings["settings"].token_keys_file).rotate()
    assert refresh(client, first["refresh_token"]).json()["refresh_token"] == lost["refresh_token"]


def test_a_session_is_refreshed_so_often_and_no_more_and_its_token_stays_good(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policies, "of_refreshes", lambda: Quota("refresh", 3, 3600, "refreshes"))
    token, other = register(client, "hurried")["refresh_token"], login(client, "hurried").json()["refresh_token"]
    for _ in range(3):
        token = refresh(client, token).json()["refresh_token"]
    refused = refresh(client, token)
    assert problem(refused, 429)["violated-policies"] == ["refresh"] and int(refused.headers["retry-after"]) > 0
    assert refresh(client, other).is_success, "another session has its own"
    monkeypatch.undo()
    assert refresh(client, token).is_success


def test_sessions_that_are_over_are_forgotten_with_their_tokens_and_open_ones_are_not(client: httpx.Client) -> None:
    kept, ended, expired = (register(client, name) for name in ("stays-open", "is-ended", "has-expired"))
    kept = refresh(client, kept["refresh_token"]).json()
    assert client.post("/logout", json={"refresh_token": ended["refresh_token"]}).status_code == 204
    with sa.create_engine(_settings["database_url"], poolclass=sa.NullPool).begin() as connection:
        accounts.forget_sessions(connection)
        before = connection.scalar(sa.select(sa.func.count()).select_from(accounts.refresh_tokens)) or 0

        def set_back(column: str, name: str) -> None:
            of_name = sa.select(accounts.users.c.id).where(accounts.users.c.username == name).scalar_subquery()
            moment = sa.func.now() - timedelta(days=1, minutes=1)
            changed = sa.update(accounts.sessions).where(accounts.sessions.c.user_id == of_name)
            connection.execute(changed.values({column: moment}))

        set_back("ended_at", "is-ended")
        set_back("expires_at", "has-expired")
        assert accounts.forget_sessions(connection, at_most=1) == accounts.forget_sessions(connection) == 1
        assert connection.scalar(sa.select(sa.func.count()).select_from(accounts.refresh_tokens)) == before - 2
    problem(refresh(client, expired["refresh_token"]), 401)
    assert refresh(client, kept["refresh_token"]).is_success


@pytest.mark.usefixtures("impatient")
def test_a_refresh_token_that_comes_again_too_late_ends_the_session(
    client: httpx.Client, heard: pytest.LogCaptureFixture
) -> None:
    first = register(client, "late")
    second = refresh(client, first["refresh_token"]).json()
    problem(refresh(client, first["refresh_token"]), 401)
    assert '"why": "reused"' in heard.messages[-1]
    problem(refresh(client, second["refresh_token"]), 401)
    problem(books(client, second["access_token"]), 401)


def test_two_that_refresh_with_one_token_at_once_get_one_token_that_works(client: httpx.Client) -> None:
    token = register(client, "twice")["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refresh(client, token).json(), range(8)))
    (following,) = {answer["refresh_token"] for answer in answers}
    assert all(books(client, answer["access_token"]).is_success for answer in answers)
    assert refresh(client, following).is_success


@pytest.mark.usefixtures("impatient")
def test_two_that_refresh_at_once_do_not_both_succeed_where_none_is_repeated(client: httpx.Client) -> None:
    token = register(client, "thrice")["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: refresh(client, token).status_code, range(8)))
    assert sorted(answers)[:2] == [200, 401]


def test_a_logout_is_final_for_a_refresh_that_could_be_repeated(client: httpx.Client) -> None:
    first = register(client, "final")
    second = refresh(client, first["refresh_token"]).json()
    assert client.post("/logout", headers=bearer(second)).status_code == 204
    for token in (first, second):
        problem(refresh(client, token["refresh_token"]), 401)


def test_logout_ends_the_session(client: httpx.Client) -> None:
    answer = register(client, "leaver")
    assert client.post("/logout", headers=bearer(answer)).status_code == 204
    problem(books(client, answer["access_token"]), 401)
    problem(refresh(client, answer["refresh_token"]), 401)
    problem(client.post("/logout", headers=bearer(answer)), 401)


def test_another_password_ends_every_session_and_the_old_one_is_worth_nothing(client: httpx.Client) -> None:
    here = register(client, "mover")
    there = login(client, "mover").json()

    def change(old: str, new: str) -> httpx.Response:
        body = {"old_password": old, "new_password": new}
        return client.post("/password", json=body, headers=bearer(here))

    wrong = change("not the old one", "five words of mine now")
    assert problem(wrong, 403)["type"].endswith(":wrong-password"), "not 401, at which apps refresh the token and retry"
    problem(change(PASSWORD, "short"), 422)
    assert change(PASSWORD, "five words of mine now").status_code == 204
    problem(refresh(client, there["refresh_token"]), 401)
    problem(login(client, "mover"), 401)
    assert login(client, "mover", "five words of mine now").is_success


@pytest.mark.parametrize("act", ["login", "password"])
def test_a_password_that_was_replaced_while_the_old_one_was_proved_is_worth_nothing(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Between the proof and what is done upon it somebody else changes the password, and ends all sessions."""
    name, new = f"raced-{act}", "five other words of mine"
    token = register(client, name)
    proved = passwords.is_password

    def proved_then_replaced(password: str, kept: str | None) -> bool:
        is_right = proved(password, kept)
        if kept is not None and is_right:
            with sa.create_engine(_settings["database_url"], poolclass=sa.NullPool).begin() as connection:
                user = accounts.find_user(connection, name)
                assert user is not None
                accounts.change_password(connection, user.id, passwords.hash_password(new))
        return is_right

    with monkeypatch.context() as patch:
        patch.setattr(passwords, "is_password", proved_then_replaced)
        patch.setattr(passwords, "is_outdated", bool)
        if act == "login":
            problem(login(client, name), 401)
        else:
            change = {"old_password": PASSWORD, "new_password": "six words that nobody else will know"}
            ended = client.post("/password", json=change, headers=bearer(token))
            assert problem(ended, 401)["type"].endswith(":ended-session")
            assert ended.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    assert login(client, name).status_code == 401 and login(client, name, new).is_success


def test_scopes_narrow_what_a_token_opens(client: httpx.Client, heard: pytest.LogCaptureFixture) -> None:
    register(client, "narrow")
    token = login(client, "narrow", scope="feedback admin").json()
    assert token["scope"] == "feedback"
    answer = books(client, token["access_token"])
    problem(answer, 403)
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    problem(login(client, "narrow", scope="admin"), 400)
    problem(client.get("/for-admins", headers=bearer(token)), 403)
    refused = [json.loads(line) for line in heard.messages if '"refused"' in line]
    assert [(line["act"], line.get("why", line.get("path"))) for line in refused] == [
        ("login", "scope"),
        ("admin", "/for-admins"),
    ]


def test_an_administrator_is_made_by_the_operator_and_by_nobody_else(client: httpx.Client) -> None:
    anyone = register(client, "anyone")
    problem(client.get("/for-admins", headers=bearer(anyone)), 403)
    with sa.create_engine(_settings["database_url"]).begin() as connection:
        accounts.add_user(connection, "boss", passwords.hash_password(PASSWORD), list(accounts.SCOPES))
    boss = login(client, "boss").json()
    assert client.get("/for-admins", headers=bearer(boss)).is_success
    extra = client.post("/register", json={"username": "sly", "password": PASSWORD, "scopes": ["admin"]})
    problem(extra, 422)


def test_a_new_key_signs_at_once_and_tokens_of_the_old_one_stay_good(client: httpx.Client) -> None:
    before = register(client, "keyed")
    KeyRing(_settings["settings"].token_keys_file).rotate()
    after = login(client, "keyed").json()
    assert before["access_token"].split(".")[0] != after["access_token"].split(".")[0]
    assert books(client, before["access_token"]).is_success and books(client, after["access_token"]).is_success


def test_the_log_says_who_did_what_and_holds_no_secret(client: httpx.Client, heard: pytest.LogCaptureFixture) -> None:
    token = register(client, "heard")
    login(client, "heard", "hunter2 hunter2")
    login(client, "my-own-password-1", "x")
    following = refresh(client, token["refresh_token"]).json()
    refresh(client, following["refresh_token"])
    refresh(client, token["refresh_token"])
    lines = [json.loads(record.getMessage()) for record in heard.records if record.name == "bookclub.audit"]
    assert [(line["act"], line["outcome"], line.get("why")) for line in lines] == [
        ("register", "done", None),
        ("login", "refused", "wrong password"),
        ("login", "refused", "unknown name"),
        ("refresh", "refused", "reused"),
    ]
    assert all(line["address"] == "127.0.0.1" for line in lines)
    secrets = [PASSWORD, "hunter2", "my-own-password-1", token["access_token"], token["refresh_token"]]
    assert not [secret for secret in secrets if secret in heard.text]


def test_the_database_keeps_no_password_and_no_token(client: httpx.Client) -> None:
    token = register(client, "kept")["refresh_token"]
    kept = str(given.read(_settings["database_url"], sa.select(accounts.users)))
    kept += str(given.read(_settings["database_url"], sa.select(accounts.refresh_tokens)))
    assert PASSWORD not in kept and token not in kept and "$argon2id$v=19$m=19456,t=2,p=1$" in kept


def test_forty_logins_at_once_hold_nobody_up_who_reads(client: httpx.Client) -> None:
    reader = bearer(register(client, "reader"))
    with ThreadPoolExecutor(40) as pool:
        logins = [pool.submit(login, client, "reader", "wrong") for _ in range(40)]
        time.sleep(0.1)
        started, took_s = time.perf_counter(), []
        while not took_s or not all(job.done() for job in logins):  # one alone may meet a busy moment of the machine
            asked = time.perf_counter()
            assert client.get("/books", headers=reader).is_success
            took_s.append(time.perf_counter() - asked)
        all_s = time.perf_counter() - started
        assert {job.result().status_code for job in logins} <= {401, 503}
        assert statistics.median(took_s) < all_s / 3, "hashing must not run on the event loop"
