"""The gateway that the deployment ships, run for real: nginx with deploy/gateway on loopback before a real API."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import NamedTuple

import httpx
import pytest

from bookclub_platform_tests import api_fixtures as given
from serving.app import create_app

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(not NGINX or not shutil.which("openssl"), reason="needs nginx and openssl")

TEMPLATE = Path(__file__).parents[1] / "deploy" / "gateway" / "bookclub.conf.template"
MAIN = """
daemon off; pid $folder/nginx.pid; error_log $folder/error.log; worker_processes 1;
events { worker_connections 256; }
http { access_log off; client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/f;
  uwsgi_temp_path $folder/u; scgi_temp_path $folder/s; include $folder/bookclub.conf; }
"""


class Gateway(NamedTuple):
    client: httpx.Client
    http_port: int
    log: Path


@pytest.fixture(scope="module")
def gateway(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    for category, books in given.catalogue().items():
        given.load(database_url, category, books)
    settings = given.settings(
        tmp_path_factory.mktemp("home"), model_poll_s=60, registrations_per_hour=5, trusted_proxies="127.0.0.1"
    )
    with given.serving(create_app(settings, database_url, "http://127.0.0.1:1")) as api:
        https_port, http_port = _start_files(folder, f"127.0.0.1:{api.base_url.port}")
        nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")])
        try:
            trusted = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
            with httpx.Client(base_url=f"https://localhost:{https_port}", verify=trusted, timeout=20) as client:
                given.wait_for(lambda: _is_up(client), 20)
                yield Gateway(client, http_port, folder / "access.log")
        finally:
            nginx.terminate()
            nginx.wait(10)


def _start_files(folder: Path, upstream: str) -> tuple[int, int]:
    https_port, http_port = given.free_port(), given.free_port()
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -addext"
    certificate = ["openssl", *request.split(), "subjectAltName=DNS:localhost"]
    certificate += ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(certificate, check=True, capture_output=True)
    values = {
        "BOOKCLUB_UPSTREAM": upstream,
        "SERVER_NAME": "localhost",
        "HTTP_PORT": f"127.0.0.1:{http_port}",
        "HTTPS_PORT": f"127.0.0.1:{https_port}",
        "TLS_FOLDER": str(folder),
        "ACCESS_LOG": str(folder / "access.log"),
    }
    (folder / "bookclub.conf").write_text(Template(TEMPLATE.read_text()).safe_substitute(values))
    (folder / "nginx.conf").write_text(Template(MAIN).substitute(folder=folder))
    return https_port, http_port


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/health").is_success
    except httpx.TransportError:
        return False


def test_books_come_through_tls_and_plain_http_is_sent_there(gateway: Gateway) -> None:
    answer = gateway.client.get("/books")
    assert answer.json()["total"] == 48 and "max-age" in answer.headers["strict-transport-security"]
    plain = httpx.get(f"http://localhost:{gateway.http_port}/books?limit=3")
    assert (plain.status_code, plain.headers["location"]) == (308, "https://localhost/books?limit=3")


def send(gateway: Gateway, raw: str, is_tls: bool) -> tuple[int, dict[str, str], bytes]:
    """The answer to exactly these bytes, through TLS or to the port without."""
    port = gateway.client.base_url.port if is_tls else gateway.http_port
    with socket.create_connection(("localhost", port or 443), timeout=10) as plain, ExitStack() as ending:
        context = ssl.create_default_context(cafile=str(gateway.log.parent / "fullchain.pem"))
        connection = ending.enter_context(context.wrap_socket(plain, server_hostname="localhost")) if is_tls else plain
        connection.sendall(raw.encode("latin-1"))
        answer = http.client.HTTPResponse(connection, method=raw.split(" ")[0])
        answer.begin()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


HOST = "Host: localhost\r\n"
CLOSE = "Connection: close\r\n\r\n"
BROKEN = [
    (f"GET /x HTTP/1.1\r\nHost: evil.example\r\n{CLOSE}", 421),
    (f"GET /books/ HTTP/1.1\r\nHost: evil.example:443\r\n{CLOSE}", 421),
    (f"GET /x HTTP/1.1\r\n{CLOSE}", 400),
    (f"GET /x HTTP/1.0\r\n{CLOSE}", 421),
    (f"GET /x HTTP/1.1\r\n{HOST}{HOST}{CLOSE}", 400),
    (f"TRACE /x HTTP/1.1\r\n{HOST}{CLOSE}", 405),
    (f"CONNECT /x HTTP/1.1\r\n{HOST}{CLOSE}", 405),
    (f"b@d /x HTTP/1.1\r\n{HOST}{CLOSE}", 400),
    ("NONSENSE\r\n\r\n", 400),
    (f"GET /x HTTP/7.0\r\n{HOST}{CLOSE}", 505),
    (f"GET /{'a' * 9000} HTTP/1.1\r\n{HOST}{CLOSE}", 414),
    (f"GET /x HTTP/1.1\r\n{HOST}X: {'a' * 9000}\r\n{CLOSE}", 431),
    (f"POST /login HTTP/1.1\r\n{HOST}Transfer-Encoding: odd\r\n{CLOSE}", 501),
    (f"GET /.problem HTTP/1.1\r\n{HOST}{CLOSE}", 404),
]


@pytest.mark.parametrize(("raw", "status"), BROKEN, ids=[raw.split("\r\n")[0][:30] for raw, _ in BROKEN])
@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_what_the_gateway_refuses_is_told_as_the_api_tells_it(
    gateway: Gateway, raw: str, status: int, is_tls: bool
) -> None:
    found, headers, body = send(gateway, raw, is_tls)
    assert (found, headers["content-type"]) == (status, given.PROBLEM), body
    assert json.loads(body)["status"] == status and json.loads(body)["detail"] and "location" not in headers


def test_plain_http_on_the_port_of_tls_is_told_so(gateway: Gateway) -> None:
    answer = httpx.get(f"http://localhost:{gateway.client.base_url.port}/books")
    given.problem_like(answer, 400)
    assert "https" in answer.json()["detail"]


def test_nobody_is_led_to_a_host_that_the_request_names(gateway: Gateway) -> None:
    answer = gateway.client.get("/books/?limit=3")
    assert (answer.status_code, answer.headers["location"]) == (307, "/books?limit=3")
    api = answer.request.url.copy_with(query=None)
    assert gateway.client.get(api, follow_redirects=True).json()["total"] == 48


def test_the_quota_counts_the_client_and_not_what_it_says_of_itself(gateway: Gateway) -> None:
    claims = [{"x-forwarded-for": f"192.0.2.{number}"} for number in range(3)]
    left = [gateway.client.post("/register", headers=claim).headers["ratelimit"] for claim in claims]
    assert [standing.split(";")[1] for standing in left] == ["r=49", "r=48", "r=47"]


def test_what_is_for_the_operator_is_not_there_from_outside(gateway: Gateway) -> None:
    for path in ("/metrics", "/ready"):
        given.problem_like(gateway.client.get(path), 404)
    assert gateway.client.get("/docs").is_success


def test_a_large_body_ends_at_the_gateway(gateway: Gateway) -> None:
    answer = gateway.client.post("/recommendations:batch", content=b" " * 100_000)
    given.problem_like(answer, 413)


def test_a_flood_of_logins_ends_at_the_gateway_and_reading_goes_on(gateway: Gateway) -> None:
    answers = [gateway.client.post("/login", content=b"x") for _ in range(30)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused and refused[0].headers["retry-after"] == "1"
    given.problem_like(refused[0], 429)
    assert gateway.client.get("/books").is_success


def test_the_access_log_names_the_request_and_not_its_secrets(gateway: Gateway) -> None:
    gateway.client.get("/books?secret=in-the-query", headers={"authorization": "Bearer in-the-header"})
    given.wait_for(lambda: '"/books","status":' in gateway.log.read_text())
    lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
    assert {"address", "method", "path", "status", "took_s", "request_id"} <= set(lines[-1])
    assert "in-the-" not in gateway.log.read_text()
