"""What the internet will send: schemathesis with every check, naughty strings, broken requests, injections."""

from __future__ import annotations

import ast
import http.client
import http.cookies
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest

from bookclub_platform.core import tables
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import PROBLEM, World, problem_like
from bookclub_platform_tests.conftest import SHARED
from bookclub_platform_tests.hostile_strings import hostile
from bookclub_platform_tests.schemathesis_hooks import NAME, PASSWORD
from serving.app import create_app

world = given.world

ROOT = Path(__file__).parents[1]
NAUGHTY = SHARED / "suites" / "blns.json"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def closed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The API of the world where data asks for a token, and the account that the hooks of schemathesis log in with."""
    settings = given.settings(tmp_path_factory.mktemp("home"), require_login=True)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        made = client.post("/register", json={"username": NAME, "password": PASSWORD})
        client.headers["authorization"] = f"Bearer {made.json()['access_token']}"
        given.wait_for(lambda: given.model_version(client) is not None)
        yield client


def test_schemathesis_finds_no_failure(closed: httpx.Client, tmp_path: Path) -> None:
    examples = os.environ.get("SCHEMATHESIS_EXAMPLES", "4")
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{str(closed.base_url).rstrip('/')}/openapi.json"]
    command += [
        "--checks",
        "all",
        "--max-examples",
        examples,
        "--seed",
        "1",
        "--suppress-health-check",
        "all",
    ]
    if "SCHEMATHESIS_EXAMPLES" not in os.environ:
        command += ["--phases", "examples,coverage,stateful"]  # by hand: SCHEMATHESIS_EXAMPLES=500 for the fuzzing
    command += ["--no-color", "--warnings", "off", "--no-shrink"]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "bookclub_platform_tests.schemathesis_hooks",
        "BOOKCLUB_TEST_API": str(closed.base_url),
    }
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    lines = (line[:500] for line in found.stdout.splitlines())  # an address may have 8,000 characters
    assert found.returncode == 0, "\n".join(lines)[-6000:] + found.stderr[-2000:]


def naughty() -> list[str]:
    strings: list[str] = json.loads(NAUGHTY.read_text()) if NAUGHTY.exists() else []
    return [text for text in strings if text not in hostile()]


def _sends(text: str) -> Iterator[tuple[str, str, dict[str, object]]]:
    """`text` wherever a request has room for it."""
    at = quote(text.encode("utf-8", "surrogatepass"), safe="")
    yield "GET", f"/books?category={at}", {}
    yield "GET", f"/books?cursor={at}&limit={at}&in_stock={at}&{at}={at}", {}
    yield "GET", f"/books/{at}", {}
    yield "GET", f"/books/{at}/recommendations", {}
    yield "GET", f"/{at}", {}
    json_type = {"content-type": "application/json"}
    yield "POST", "/recommendations:batch", {"content": json.dumps({"book_ids": [text]}), "headers": json_type}
    account = json.dumps({"username": text, "password": text})
    yield "POST", "/register", {"content": account, "headers": json_type}
    yield "POST", "/login", {"content": f"username={at}&password={at}", "headers": {"content-type": FORM}}
    if len(text) % 8 == 0:  # each is hashed as a password, which is slow on purpose
        yield "POST", "/login", {"content": f"username=nobody&password={at}", "headers": {"content-type": FORM}}
    yield "POST", "/token/refresh", {"content": json.dumps({"refresh_token": text}), "headers": json_type}
    yield "GET", "/books", {"headers": {"authorization": b"Bearer " + text.encode("utf-8", "replace")[:4000]}}


def _sends_more(text: str, token: dict[str, str]) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Likewise, at the routes that do most with it."""
    at = quote(text.encode("utf-8", "surrogatepass"), safe="")
    for path in ("/books/search?q=", "/catalogue?q=", "/catalogue?start=", "/catalogue/login?next=", "/catalogue/"):
        yield "GET", f"{path}{at}", {}
    yield "GET", f"/books/{at}/history", {}
    yield "GET", f"/segments/{at}", {}
    yield "GET", f"/books/search?q=whale&category={at}&min_price={at}&cursor={at}", {}
    yield "GET", f"/books/export?format={at}", {"headers": token}
    yield "GET", f"/books/export?after={at}&data_version={at}", {"headers": token}
    event = dict.fromkeys(("event_id", "kind", "recommendation_id", "book_id"), text)
    named = {"event_id": str(uuid4()), "kind": "shown", "recommendation_id": text, "book_id": 1}
    bodies: dict[str, list[object]] = {
        "/feedback": [{"events": [event]}, {"events": [named]}, {text: text}, text],
        "/recommendations": [{"text": text}, {"liked": [text]}, {"liked": [1], "category": text}],
        "/predict": [{"book_id": text}],
        "/password": [{"old_password": text, "new_password": text}],
        "/crawls": [{"categories": [text]}],
    }
    for path, several in bodies.items():
        for body in several:
            yield "POST", path, {"content": json.dumps(body), "headers": token | {"content-type": "application/json"}}
    headers = {"content-type": FORM, "sec-fetch-site": "same-origin"}
    yield "POST", "/catalogue/login", {"content": f"username={at}&password=x&next={at}", "headers": headers}
    yield (
        "POST",
        "/catalogue/register",
        {"content": f"username={at}&password={at}&again=&next={at}", "headers": headers},
    )


def _refused_or_answered(client: httpx.Client, method: str, path: str, more: dict[str, Any]) -> int | None:
    """The status, after a look at the answer; None for what httpx does not send: that is sent as bytes below."""
    try:
        answer = client.request(method, path, **more)
    except (httpx.InvalidURL, httpx.LocalProtocolError):
        return None
    assert answer.status_code < 500 and "Traceback" not in answer.text, (method, path[:200], answer.text[:500])
    if answer.status_code >= 400:
        assert answer.headers["content-type"].startswith((PROBLEM, "text/html")), (path, answer.text)
    return answer.status_code


def test_no_naughty_string_anywhere_brings_it_down_or_changes_a_row(world: World) -> None:
    before = given.read(world.database_url, tables.select_data_version())
    made = world.client.post("/register", json={"username": "hostile", "password": PASSWORD})
    token = {"authorization": f"Bearer {made.json()['access_token']}"}
    assert len(hostile()) > 120
    seen: dict[str, set[int | None]] = {}
    for text in [*hostile(), *naughty()]:
        for method, path, more in _sends(text):
            _refused_or_answered(world.client, method, path, more)
    for text in hostile():
        for method, path, more in _sends_more(text, token):
            status = _refused_or_answered(world.client, method, path, more)
            seen.setdefault(f"{method} {re.split('[?]', path)[0]}", set()).add(status)
    got_far = {"GET /books/search": 200, "GET /catalogue": 200, "GET /books/export": 409, "POST /recommendations": 200}
    assert not {asked: seen[asked] for asked, status in got_far.items() if status not in seen[asked]}
    assert given.read(world.database_url, tables.select_data_version()) == before
    assert world.client.get("/books").json()["total"] == 48


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /books/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", 422),
        (b"GET /books?category=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /books?category=%c3%a9 HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /books?category=%c3&%a9=1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /books?category=%ED%A0%80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /catalogue?q=%C0%AF HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /books?category=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /books HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 401),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /books HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET /books HTTP/1.1\r\n\r\n", 400),
        (b"GET /books HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /books HTTP/1.0\r\n\r\n", 200),
        (b"NONSENSE\r\n\r\n", 400),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    ],
)
def test_broken_requests_are_refused_and_the_next_one_is_answered(world: World, raw: bytes, status: int) -> None:
    url = world.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(raw)
        answer = connection.recv(65536)
    assert int(answer.split()[1]) == status and b"Traceback" not in answer, answer[:500]
    assert status < 400 or PROBLEM.encode() in answer, answer[:500]
    assert b"x-content-type-options: nosniff\r\n" in answer and b"content-security-policy: " in answer
    assert world.client.get("/health").is_success


@pytest.mark.parametrize("at_once", [True, False])
def test_who_offers_another_protocol_is_answered_in_this_one_and_no_body_is_lost(world: World, at_once: bool) -> None:
    """As Java's client asks, and `curl --http2`; likewise a websocket, and what follows on the same connection."""
    body = b'{"liked": [%d], "limit": 1}' % given.ids_of(world)[0]
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
    head = b"POST /recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + offer
    socket_offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    asked = [
        (head + b"Content-Length: %d\r\n\r\n" % len(body) + body, 200),
        (head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), 200),
        (b"GET /no-such HTTP/1.1\r\nHost: x\r\n" + socket_offer + b"\r\n", 404),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + offer.replace(b"Upgrade,", b"Upgrade, close,") + b"\r\n", 200),
    ]
    url = world.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        for raw, status in asked:
            for part in [raw] if at_once else [raw[:150], raw[150:]]:
                connection.sendall(part)
                time.sleep(0.05)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            told = json.loads(answer.read())
            assert answer.status == status, told
            assert status != 200 or "liked" not in raw.decode() or len(told["items"]) == 1
        assert connection.recv(1) == b""  # as it was asked to


@pytest.mark.parametrize("path", ["/books/", "/categories/", "//evil.example/", "//evil.example/books/"])
def test_nobody_is_led_to_the_host_that_a_request_names(world: World, path: str) -> None:
    url = world.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(f"GET {path}?limit=3 HTTP/1.1\r\nHost: evil.example\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
    if path.startswith("//"):
        assert answer.status == 404
    else:
        assert (answer.status, answer.headers["location"]) == (307, f"{path.rstrip('/')}?limit=3")


@pytest.mark.parametrize(
    "path", ["/login%0A", "/register%0a", "/%0Alogin", "/token/refresh%0d", "/books%00", "/ready%7f"]
)
def test_no_address_goes_round_a_quota_by_a_control_character(world: World, path: str) -> None:
    for method in ("GET", "POST"):
        problem_like(world.client.request(method, path), 404)


@pytest.mark.parametrize("path", ["/books", "/books/0", "/nothing", "/fault", "/catalogue", "/docs", f"/{'a' * 9000}"])
def test_every_answer_carries_the_headers_that_browsers_want(world: World, path: str) -> None:
    headers = world.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("script-src" in headers["content-security-policy"]) == (path == "/docs")


def test_pages_of_other_sites_may_ask_only_where_the_operator_says_so(world: World, tmp_path: Path) -> None:
    asked = {"origin": "https://shop.example", "access-control-request-method": "GET"}
    assert "access-control-allow-origin" not in world.client.get("/health", headers=asked).headers
    settings = given.settings(tmp_path, model_poll_s=60, cors_origins="https://shop.example")
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        assert client.get("/health", headers=asked).headers["access-control-allow-origin"] == "https://shop.example"
        assert client.options("/books", headers=asked).is_success
        traced = {"access-control-request-headers": "authorization,if-none-match,traceparent,tracestate,x-request-id"}
        assert client.options("/books", headers=asked | traced).is_success
        for path, more, status in (
            (f"/{'a' * 9000}", {}, 414),
            ("/books", {"x-long": "a" * 40_000}, 431),
            ("/books?category=%ff", {}, 400),
            ("/books/01", {}, 422),
        ):
            refused = client.get(path, headers={"origin": asked["origin"]} | more)
            problem_like(refused, status)
            assert refused.headers["access-control-allow-origin"] == asked["origin"]
            exposed = set(refused.headers["access-control-expose-headers"].lower().split(", "))
            assert exposed >= {"location", "www-authenticate", "retry-after", "x-request-id", "content-disposition"}
            assert refused.headers["x-content-type-options"] == "nosniff"
        other = client.get("/health", headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


def _begins_without_end(pattern: str | bytes) -> bool:
    """Whether a search for it reads to the end of a text from each place where it may begin: something without end, and
    then what may be missing."""
    (operation, parts), *rest = re._parser.parse(pattern) or [(None, None)]  # type: ignore[attr-defined]
    is_endless = str(operation) in {"MAX_REPEAT", "MIN_REPEAT"} and str(parts[1]) == "MAXREPEAT"
    return is_endless and bool(rest)


def _patterns(path: Path) -> Iterator[str | bytes]:
    """What is searched for: a pattern that has to match from the beginning is tried once."""
    compiled: dict[str, str | bytes] = {}
    searches = {"sub", "subn", "search", "findall", "finditer", "split"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and _name(node.value.func) == "compile":
            pattern, target = node.value.args[0], node.targets[0]
            if isinstance(pattern, ast.Constant) and isinstance(target, ast.Name):
                compiled[target.id] = pattern.value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in searches:
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if owner == "re" and isinstance(node.args[0], ast.Constant):
                yield node.args[0].value
            elif owner in compiled:
                yield compiled[owner]


def test_no_pattern_that_is_searched_for_takes_the_square_of_what_a_stranger_sends(tmp_path: Path) -> None:
    assert _begins_without_end(rb"[^,]*gzip") and not _begins_without_end(r"[\W_]+") and not _begins_without_end("a*")
    found = 0
    for path in [*ROOT.glob("serving/**/*.py"), *ROOT.glob("bookclub_platform/core/*.py")]:
        for pattern in _patterns(path):
            found += 1
            assert not _begins_without_end(pattern), (path, pattern)
    assert found >= 5
    written = tmp_path / "written.py"
    written.write_text('import re\n_OLD = re.compile(rb"[^,]*gzip")\n_OLD.sub(b"", b"")\nre.split("x*y", "")\n')
    assert [_begins_without_end(pattern) for pattern in _patterns(written)] == [True, True]


def test_a_cookie_of_backslashes_is_read_without_python_s_own_slow_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CVE-2024-7592: eight seconds for 32 kB in Python 3.11.7."""
    read = []
    monkeypatch.setattr(http.cookies, "_unquote", read.append)
    cookie = 'a="1"; bookclub_session="' + "\\1" * 15_000 + '"; b'
    for path in ("/catalogue", "/categories", "/books?limit=3"):
        assert world.client.get(path, headers={"cookie": cookie}).is_success and not read, path


@pytest.mark.parametrize("written", ["1_0", "01", "1.0", "+1", "%201", "1%20", "1e0", "%D9%A1", "-1", "0", "1_"])
def test_a_book_has_one_address_and_a_number_one_way_to_be_written(world: World, written: str) -> None:
    for path in (f"/books/{written}", f"/books/{written}/recommendations", f"/books/{written}/history"):
        assert given.problem(world.client.get(path.replace("%20", " ")), 422)["type"].endswith("invalid-request")
    assert world.client.get(f"/catalogue/{written}").status_code == 404
    for query in (f"limit={written}", f"min_rating={written}"):
        assert world.client.get(f"/books?{query.replace('+', '%2B')}").status_code == 422
    assert world.client.get(f"/books/1/recommendations?exclude={written.replace('+', '%2B')}").status_code == 422
    if written not in {"1.0", "1e0", "0"}:
        assert world.client.get(f"/books?min_price={written.replace('+', '%2B')}").status_code == 422
    assert world.client.get("/books?limit=10&min_price=1e0&max_price=99.50&min_rating=1").is_success


def test_sql_is_written_in_core_alone_and_takes_no_text_from_outside() -> None:
    """Of the modules that serve: outside of core none writes SQL; in core a text of SQL is a constant, but for names
    that are constants themselves."""
    constants = {"SCHEMA", "quoted"}
    for path in [*ROOT.glob("serving/**/*.py"), *ROOT.glob("bookclub_platform/core/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and _name(node.func) in {"text", "exec_driver_sql", "literal_column"}):
                continue
            assert path.parent.name == "core", f"{path} writes SQL: that belongs to core"
            written = node.args[0]
            for part in written.values if isinstance(written, ast.JoinedStr) else [written]:
                is_known = isinstance(part, ast.FormattedValue) and ast.unparse(part.value) in constants
                assert isinstance(part, ast.Constant) or is_known, f"{path}:{node.lineno}: {ast.unparse(part)}"
        if path.parent.name != "core":
            assert not re.search(r"[\"'](SELECT|INSERT|UPDATE|DELETE|WITH) ", path.read_text()), path


def _name(called: ast.expr) -> str:
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
