"""The web catalogue where everybody has to log in: in a real browser, and what no browser would send."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse

from bookclub_platform.core.token_keys import KeyRing
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import problem
from bookclub_platform_tests.test_accounts import PASSWORD, login, register
from serving.access import accounts as serving_accounts
from serving.access.callers import COOKIE
from serving.access.paths import PAGES, WEB_ACCOUNT, WEB_LOGIN, WEB_REGISTER
from serving.app import create_app

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

NOWHERE = "http://127.0.0.1:1"
keys: list[Path] = []  # of `closed`
WRONG = "Wrong name or password"


@pytest.fixture(scope="module")
def closed(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """An API whose every page and route with data asks who one is."""
    for category, books in given.catalogue().items():
        given.load(database_url, category, books)
    home = tmp_path_factory.mktemp("home")
    settings = given.settings(home, require_login=True, model_poll_s=60, trusted_proxies="127.0.0.1")
    app = create_app(settings, database_url, NOWHERE)
    with pytest.MonkeyPatch.context() as patch, given.serving(app) as client:
        patch.setattr(serving_accounts, "LIVE_FOR_S", 0.2)
        register(client, "reader")
        keys.append(settings.token_keys_file)
        yield client


@pytest.fixture
def browser(closed: httpx.Client) -> Iterator[Chrome]:
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no Chromium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for option in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(option)
    chrome = webdriver.Chrome(options=options, service=Service(str(shutil.which("chromedriver"))))
    try:
        yield chrome
    finally:
        chrome.quit()


def press(browser: Chrome, selector: str) -> None:
    """Returns once the page that it leads to is there.

    While one page gives way to the next, Chromium may answer that a node "does not belong to the document" where others
    say that it is stale (an "unknown error"): it is asked again.
    """
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    button = browser.find_element("css selector", selector)
    button.click()
    patient = WebDriverWait(browser, 20, ignored_exceptions=(WebDriverException,))
    patient.until(expected_conditions.staleness_of(button))
    patient.until(lambda _: browser.find_elements("css selector", "main"))


def send(
    client: httpx.Client, path: str = WEB_LOGIN, headers: dict[str, str] | None = None, **form: str
) -> httpx.Response:
    """As a browser's form does, whose cookies are not kept here."""
    fields = {"username": "reader", "password": PASSWORD} | form
    answer = client.post(path, data=fields, headers=headers or {})
    client.cookies.clear()
    return answer


def cookie_of(answer: httpx.Response) -> str:
    found = re.match(f"{COOKIE}=([^;]+);", answer.headers["set-cookie"])
    assert found, answer.headers
    return found[1]


def read(client: httpx.Client, cookie: str, path: str = PAGES) -> httpx.Response:
    return client.get(path, headers={"cookie": f"{COOKIE}={cookie}"})


def test_a_reader_logs_in_reads_and_logs_out_in_a_browser(closed: httpx.Client, browser: Chrome) -> None:
    from selenium.webdriver.common.by import By

    def text() -> str:
        return browser.find_element(By.TAG_NAME, "main").text

    def fill(name: str, password: str) -> None:
        for field, value in (("username", name), ("password", password)):
            box = browser.find_element(By.NAME, field)
            box.clear()
            box.send_keys(value)
        press(browser, "form.login button")

    base = str(closed.base_url).rstrip("/")
    browser.get(f"{base}/catalogue/1?x=1")
    assert WEB_LOGIN in browser.current_url and "Whale" not in text()
    fill("reader", "not the right words")
    assert WRONG in text() and browser.find_element(By.NAME, "username").get_attribute("value") == "reader"
    browser.get(f"{base}/catalogue?category=sea")
    fill("Reader", PASSWORD)
    assert browser.current_url == f"{base}/catalogue?category=sea" and "12 books" in text()
    assert browser.execute_script("return document.cookie") == ""
    (cookie,) = browser.get_cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"], cookie["secure"]) == (True, "Lax", PAGES, False)
    press(browser, ".card a")
    assert re.search("/catalogue/[0-9]+$", browser.current_url)
    browser.get(f"{base}/books")
    assert "no-token" in browser.page_source  # the API does not take the cookie
    browser.get(f"{base}/catalogue")
    press(browser, "header form[method=post] button")
    assert WEB_LOGIN in browser.current_url and browser.get_cookies() == []
    assert read(closed, cookie["value"]).status_code == 303


def test_a_form_of_another_site_logs_nobody_in(closed: httpx.Client, browser: Chrome) -> None:
    form = (
        f'<form action="{closed.base_url}{WEB_LOGIN}" method="post"><input name="username" value="reader">'
        f'<input name="password" value="{PASSWORD}"><button>Win</button></form>'
    )

    async def evil() -> HTMLResponse:
        return HTMLResponse(form)

    elsewhere = FastAPI()
    elsewhere.add_api_route("/", evil)
    with given.serving(elsewhere) as other:
        browser.get(f"http://localhost:{other.base_url.port}/")  # another name, so another site
        press(browser, "button")
    assert "another site" in browser.find_element("css selector", "main").text and browser.get_cookies() == []


@pytest.mark.parametrize("path", ["/catalogue", "/catalogue/1", "/catalogue?q=whale", "/catalogue?category=sea"])
def test_no_page_with_data_is_read_without_a_login(closed: httpx.Client, path: str) -> None:
    for cookie in ("", "x", "a.b.c"):
        answer = read(closed, cookie, path)
        assert answer.status_code == 303 and answer.headers["location"].startswith(f"{WEB_LOGIN}?next=")
        assert answer.headers["cache-control"] == "no-store" and not answer.text


def test_an_access_token_is_no_cookie_and_a_cookie_no_access_token(closed: httpx.Client) -> None:
    token = login(closed, "reader").json()["access_token"]
    cookie = cookie_of(send(closed))
    assert read(closed, token).status_code == 303
    problem(closed.get("/books", headers={"authorization": f"Bearer {cookie}"}), 401)
    problem(closed.get("/books", headers={"cookie": f"{COOKIE}={cookie}"}), 401)
    page = read(closed, cookie)
    assert page.status_code == 200 and page.headers["cache-control"].startswith("private")


def test_the_cookie_goes_over_https_alone_where_the_page_came_by_it(closed: httpx.Client) -> None:
    behind = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
    assert "; secure" in send(closed, headers=behind).headers["set-cookie"].lower()
    plain = send(closed).headers["set-cookie"].lower()
    assert "; secure" not in plain and "httponly" in plain and "samesite=lax" in plain


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "same-origin"}, 303),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 303),
        ({"origin": "null"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "http://127.0.0.1.evil.example"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
def test_a_login_comes_from_our_own_page(closed: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert send(closed, headers=headers).status_code == status
    assert send(closed, "/catalogue/logout", headers).status_code == status


@pytest.mark.parametrize("path", [WEB_LOGIN, "/catalogue/logout", WEB_REGISTER, WEB_ACCOUNT])
def test_a_form_from_a_client_that_names_no_host_is_refused_as_any_of_another_site(
    closed: httpx.Client, path: str
) -> None:
    form = "username=reader&password=some+words+more&again=some+words+more&old_password=x"
    lines = [f"POST {path} HTTP/1.0", "Origin: http://evil.example", f"Content-Length: {len(form)}"]
    lines += ["Content-Type: application/x-www-form-urlencoded", "", form]
    address = closed.base_url.host, closed.base_url.port or 80
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert int(connection.recv(65536).split()[1]) == 403


@pytest.mark.parametrize(
    ("following", "leads_to"),
    [
        ("/catalogue/7", "/catalogue/7"),
        ("/catalogue?q=a+whale&start=24", "/catalogue?q=a+whale&start=24"),
        *(
            (evil, PAGES)
            for evil in (
                "//evil.example",
                "https://evil.example/catalogue",
                "/catalogue/../docs",
                "/catalogue@evil",
                "",
            )
        ),
        *((evil, PAGES) for evil in ("/catalogue\\evil", "/catalogue/login", "/catalogue?a\r\nSet-Cookie: b=c", "//[")),
    ],
)
def test_a_login_leads_to_the_catalogue_and_nowhere_else(closed: httpx.Client, following: str, leads_to: str) -> None:
    assert send(closed, next=following).headers["location"] == leads_to


@pytest.mark.parametrize("name", ["reader ", "nobody", "x\x00", "\ud83d", "x" * 5000, "' OR 1=1 --", "<script>"])
def test_a_name_that_is_none_is_as_wrong_as_a_password(closed: httpx.Client, name: str) -> None:
    answer = closed.post(WEB_LOGIN, data={"username": name.encode("utf-8", "replace"), "password": "some words"})
    assert answer.status_code == 401 and WRONG in answer.text and "set-cookie" not in answer.headers
    assert "<script>" not in answer.text


def test_an_account_that_ends_its_sessions_is_out_of_the_catalogue_too(closed: httpx.Client) -> None:
    register(closed, "leaver")
    token = login(closed, "leaver").json()["access_token"]
    cookie = cookie_of(send(closed, username="leaver"))
    assert read(closed, cookie).status_code == 200 and read(closed, cookie, WEB_LOGIN).status_code == 303
    change = {"old_password": PASSWORD, "new_password": "five other words of mine"}
    assert closed.post("/password", json=change, headers={"authorization": f"Bearer {token}"}).status_code == 204
    given.wait_for(lambda: read(closed, cookie).status_code == 303)
    # The page clears a cookie that is good for nothing, so that what is open to all can be read again.
    assert "Max-Age=0" in read(closed, cookie, WEB_LOGIN).headers["set-cookie"]


def test_a_cookie_outlives_a_rotation_of_the_keys_for_as_long_as_any_token(closed: httpx.Client) -> None:
    cookie = cookie_of(send(closed))
    KeyRing(keys[0]).rotate()
    assert read(closed, cookie).status_code == 200 and read(closed, cookie_of(send(closed))).status_code == 200


def test_tries_at_the_page_count_as_logins_and_looking_at_it_does_not(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = given.settings(tmp_path_factory.mktemp("home"), require_login=True, logins_per_minute=3)
    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        assert [client.get(WEB_LOGIN).status_code for _ in range(5)] == [200] * 5
        statuses = [send(client, password="wrong words").status_code for _ in range(4)]
        assert statuses == [401, 401, 401, 429]


def test_who_logs_out_while_the_database_is_away_is_logged_out_in_that_browser(
    closed: httpx.Client, database_url: str
) -> None:
    cookie = cookie_of(send(closed))
    with given.without_postgres(database_url):
        answer = send(closed, f"{PAGES}/logout", {"cookie": f"{COOKIE}={cookie}"})
    assert answer.status_code == 503 and "logged out in this browser" in answer.text
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]


def test_where_nobody_has_to_log_in_the_shelves_are_open_whatever_the_cookie(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = given.settings(tmp_path_factory.mktemp("home"))
    with given.serving(create_app(settings, database_url, NOWHERE)) as client:
        assert read(client, "x").status_code == 200 and "Log out" not in read(client, "x").text
