"""Signing up, and changing a password, in the web catalogue: in a real browser, and what no browser would send."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests import test_web_login
from bookclub_platform_tests.test_accounts import PASSWORD, login, refresh, register
from bookclub_platform_tests.test_web_login import NOWHERE, cookie_of, press, read, send
from serving.access.callers import COOKIE
from serving.access.paths import PAGES, WEB_ACCOUNT, WEB_LOGIN, WEB_REGISTER
from serving.app import create_app

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

closed, browser = test_web_login.closed, test_web_login.browser
OTHER = "five other words of mine"
THEIRS = {"sec-fetch-site": "cross-site"}


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    caplog.set_level(logging.INFO, logger="bookclub.audit")
    yield caplog


def sign_up(client: httpx.Client, name: str, headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
    fields = {"username": name, "password": PASSWORD, "again": PASSWORD} | form
    return send(client, WEB_REGISTER, headers, **fields)


def change(client: httpx.Client, cookie: str, headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
    fields = {"old_password": PASSWORD, "password": OTHER, "again": OTHER} | form
    return send(client, WEB_ACCOUNT, {"cookie": f"{COOKIE}={cookie}"} | (headers or {}), **fields)


def test_a_reader_signs_up_reads_and_changes_the_password_in_a_browser(closed: httpx.Client, browser: Chrome) -> None:
    def fill(**fields: str) -> None:
        for name, value in fields.items():
            box = browser.find_element("name", name)
            box.clear()
            box.send_keys(value)
        press(browser, "form.login button")

    base = str(closed.base_url).rstrip("/")
    browser.get(f"{base}/catalogue?category=sea")
    press(browser, "main a[href*=register]")
    fill(username="newcomer", password="password1234", again="password1234")
    assert "easy to guess" in browser.find_element("css selector", "[role=alert]").text
    assert browser.find_element("name", "username").get_attribute("value") == "newcomer"
    fill(password=PASSWORD, again="four words of mime")
    assert "differ" in browser.find_element("css selector", "[role=alert]").text
    fill(password=PASSWORD, again=PASSWORD)
    assert browser.current_url == f"{base}/catalogue?category=sea"
    press(browser, "header a[href$=account]")
    fill(old_password=PASSWORD, password=OTHER, again=OTHER)
    assert "is changed" in browser.find_element("css selector", "[role=status]").text
    press(browser, "header form[method=post] button")
    assert login(closed, "newcomer").status_code == 401 and login(closed, "newcomer", OTHER).is_success


def test_who_signs_up_may_read_pages_and_nothing_else(closed: httpx.Client, heard: pytest.LogCaptureFixture) -> None:
    answer = sign_up(closed, "Signed", next="/catalogue/7")
    assert (answer.status_code, answer.headers["location"]) == (303, "/catalogue/7")
    assert answer.headers["cache-control"] == "no-store" and "httponly" in answer.headers["set-cookie"].lower()
    cookie = cookie_of(answer)
    assert read(closed, cookie).status_code == 200
    assert closed.get("/books", headers={"authorization": f"Bearer {cookie}"}).status_code == 401
    assert login(closed, "signed").json()["scope"] == "read export feedback"  # the account is as any other
    acts = [(line["act"], line["outcome"]) for line in map(json.loads, heard.messages)]
    assert acts[0] == ("register", "done") and PASSWORD not in heard.text


@pytest.mark.parametrize(
    ("form", "status", "told"),
    [
        ({"username": "x"}, 422, "3 to 64 letters"),
        ({"username": "<script>alert(1)</script>"}, 422, "3 to 64 letters"),
        ({"password": "short", "again": "short"}, 422, "12 to 256"),
        ({"password": "password1234", "again": "password1234"}, 403, "easy to guess"),
        ({"password": "wanting-my-name", "again": "wanting-my-name", "username": "wanting"}, 403, "the name"),
        ({"again": "another one of them"}, 422, "passwords differ"),
        ({"username": "READER"}, 409, "is taken"),
    ],
)
def test_a_form_that_cannot_be_comes_back_filled_in_with_what_is_wrong(
    closed: httpx.Client, form: dict[str, str], status: int, told: str
) -> None:
    answer = sign_up(closed, **({"name": "wanted"} if "username" not in form else {"name": "-"}), **form)
    assert answer.status_code == status and told in answer.text and "set-cookie" not in answer.headers
    assert answer.headers["cache-control"] == "no-store" and "<script" not in answer.text
    assert PASSWORD not in answer.text and "password1234" not in answer.text
    if "<" not in form.get("username", ""):
        assert f'value="{form.get("username", "wanted")}"' in answer.text
    assert login(closed, "wanted").status_code == 401


def test_a_form_of_another_site_makes_no_account_and_changes_no_password(closed: httpx.Client) -> None:
    assert sign_up(closed, "forged", THEIRS).status_code == 403
    assert sign_up(closed, "forged", {"origin": "https://evil.example"}).status_code == 403
    assert login(closed, "forged").status_code == 401
    cookie = cookie_of(sign_up(closed, "target"))
    assert change(closed, cookie, THEIRS).status_code == 403
    assert login(closed, "target").is_success


def test_another_password_ends_all_other_sessions_and_goes_on_in_this_one(closed: httpx.Client) -> None:
    app = register(closed, "mover")
    here, there = (cookie_of(send(closed, username="mover")) for _ in range(2))
    assert "mover" in read(closed, here, WEB_ACCOUNT).text
    wrong = change(closed, here, old_password="not the old one")
    assert wrong.status_code == 403 and "current password is wrong" in wrong.text
    assert change(closed, here, password="password1234", again="password1234").status_code == 403
    assert change(closed, here, again="not the same at all").status_code == 422
    assert change(closed, here, password="short", again="short").status_code == 422
    assert read(closed, there).status_code == 200
    done = change(closed, here)
    assert (done.status_code, done.headers["location"]) == (303, f"{WEB_ACCOUNT}?changed")
    assert read(closed, cookie_of(done)).status_code == 200
    for cookie in (here, there):
        given.wait_for(lambda: read(closed, cookie).status_code == 303)  # noqa: B023 - called at once
    assert refresh(closed, app["refresh_token"]).status_code == 401
    assert login(closed, "mover", OTHER).is_success


def test_an_account_is_for_whose_it_is(closed: httpx.Client) -> None:
    for cookie in ("", "x"):
        asked = read(closed, cookie, WEB_ACCOUNT)
        assert asked.status_code == 303 and asked.headers["location"].startswith(f"{WEB_LOGIN}?next=")
        assert change(closed, cookie).status_code == 303
    cookie = cookie_of(sign_up(closed, "leaving"))
    assert closed.post("/catalogue/logout", headers={"cookie": f"{COOKIE}={cookie}"}).status_code == 303
    closed.cookies.clear()
    assert read(closed, cookie, WEB_ACCOUNT).status_code == 303 and change(closed, cookie).status_code == 303


def test_sign_ups_have_the_quota_of_registrations_and_are_told_of_it_in_a_page(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = given.settings(tmp_path_factory.mktemp("home"), registrations_per_hour=2, logins_per_minute=3)
    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        assert [client.get(WEB_REGISTER).status_code for _ in range(5)] == [200] * 5
        answers = [sign_up(client, f"crowd-{number}") for number in range(3)]
        assert [answer.status_code for answer in answers] == [303, 303, 429]
        assert "text/html" in answers[2].headers["content-type"] and "try again in" in answers[2].text
        assert int(answers[2].headers["retry-after"]) > 0
        assert client.post("/register", json={"username": "more", "password": PASSWORD}).status_code == 429
        cookie = cookie_of(answers[0])
        tries = [change(client, cookie, old_password="wrong words").status_code for _ in range(4)]
        assert tries == [403, 403, 403, 429]


def test_where_registration_is_closed_nobody_signs_up_and_no_page_offers_it(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = given.settings(tmp_path_factory.mktemp("home"), open_registration=False, require_login=True)
    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        page = client.get(WEB_REGISTER)
        assert page.status_code == 403 and "Ask the operator" in page.text and "new-password" not in page.text
        assert sign_up(client, "hopeful").status_code == 403
        assert WEB_REGISTER not in client.get(WEB_LOGIN).text


def test_every_page_leads_to_the_account(closed: httpx.Client) -> None:
    anyone = closed.get(WEB_LOGIN).text
    assert f'href="{WEB_REGISTER}"' in anyone and "Log out" not in anyone
    cookie = cookie_of(sign_up(closed, "looking"))
    for path in (PAGES, f"{PAGES}/999999", f"{PAGES}/x", WEB_ACCOUNT):
        text = read(closed, cookie, path).text
        assert "Log out" in text and re.search(f'href="{WEB_ACCOUNT}"', text) and WEB_REGISTER not in text
