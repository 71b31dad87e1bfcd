"""What the internet will send: schemathesis with every check, naughty strings, broken requests, injections."""

from __future__ import annotations

import ast
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from bookclub_platform.core import tables
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import PROBLEM, World
from bookclub_platform_tests.conftest import SHARED
from bookclub_platform_tests.schemathesis_hooks import NAME, PASSWORD
from serving.app import create_app

world = given.world

ROOT = Path(__file__).parents[1]
NAUGHTY = SHARED / "suites" / "blns.json"
FORM = "application/x-www-form-urlencoded"
INJECTIONS = ["'", "''; DROP TABLE bookclub.books; --", "1 OR 1=1", "' OR '1'='1", "sea' --", "%", "$1", ":x", "{0}"]


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
    return [*strings, *INJECTIONS, "a\x00b", "9" * 5000, "-1", "1e400", "NaN", "x" * 9000, "\u202e", "\ud800"]


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


def test_no_naughty_string_anywhere_brings_it_down_or_changes_a_row(world: World) -> None:
    before = given.read(world.database_url, tables.select_data_version())
    for text in naughty():
        for method, path, more in _sends(text):
            try:
                answer = world.client.request(method, path, **more)
            except (httpx.InvalidURL, httpx.LocalProtocolError):
                continue  # what httpx does not send is sent as bytes below
            assert answer.status_code < 500 and "Traceback" not in answer.text, (method, path[:200], answer.text[:500])
            is_bad = answer.status_code >= 400 and answer.headers["content-type"] != "text/plain; charset=utf-8"
            assert not is_bad or answer.headers["content-type"].startswith((PROBLEM, "text/html")), (path, answer.text)
    assert given.read(world.database_url, tables.select_data_version()) == before
    assert world.client.get("/books").json()["total"] == 48


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /books/%ff%fe HTTP/1.1\r\nHost: x\r\n\r\n", 422),
        (b"GET /books?category=%ff HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET /books?category=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /books HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xff\xfe\r\n\r\n", 401),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /books HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"NONSENSE\r\n\r\n", 400),
        (b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", 400),
    ],
)
def test_broken_requests_are_refused_and_the_next_one_is_answered(world: World, raw: bytes, status: int) -> None:
    url = world.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        connection.sendall(raw)
        answer = connection.recv(65536)
    assert int(answer.split()[1]) == status and b"Traceback" not in answer, answer[:500]
    assert world.client.get("/health").is_success


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
        other = client.get("/health", headers=asked | {"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers


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
