"""The gateway that the deployment ships, run for real: nginx with deploy/gateway on loopback before a real API."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from string import Template
from typing import NamedTuple

import httpx
import pytest
from pydantic import TypeAdapter

from bookclub_platform.core.tables import select_training_rows
from bookclub_platform.models import BookText, ModelVersion, Tfidf
from bookclub_platform_tests import api_fixtures as given
from serving.app import create_app
from serving.recommender.champion import LAST, Last

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(not NGINX or not shutil.which("openssl"), reason="needs nginx and openssl")


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()
TEMPLATE = Path(__file__).parents[1] / "deploy" / "gateway" / "bookclub.conf.template"
MAIN = """
daemon off; pid $folder/nginx.pid; error_log $folder/error.log; worker_processes 1;
events { worker_connections 256; }
http { access_log $folder/other.log; set_real_ip_from 127.0.0.1; real_ip_header X-Test-Address;
  client_body_temp_path $folder/body; proxy_temp_path $folder/proxy; fastcgi_temp_path $folder/f;
  uwsgi_temp_path $folder/u; scgi_temp_path $folder/s; include $folder/bookclub.conf; }
"""


class Gateway(NamedTuple):
    client: httpx.Client
    http_port: int
    log: Path
    database_url: str


@pytest.fixture(scope="module")
def gateway(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    for category, books in given.catalogue().items():
        given.load(database_url, category, books)
    home = tmp_path_factory.mktemp("home")
    _leave_model(home / "serving" / "models", database_url)
    settings = given.settings(home, model_poll_s=60, registrations_per_hour=5, trusted_proxies="127.0.0.1")
    with given.serving(create_app(settings, database_url, "http://127.0.0.1:1")) as api:
        https_port, http_port = _start_files(folder, f"127.0.0.1:{api.base_url.port}")
        nginx = subprocess.Popen([str(NGINX), "-p", str(folder), "-c", str(folder / "nginx.conf")])
        try:
            trusted = ssl.create_default_context(cafile=str(folder / "fullchain.pem"))
            with httpx.Client(base_url=f"https://localhost:{https_port}", verify=trusted, timeout=20) as client:
                given.wait_for(lambda: _is_up(client), 20)
                yield Gateway(client, http_port, folder / "access.log", database_url)
        finally:
            nginx.terminate()
            nginx.wait(10)


def _leave_model(folder: Path, database_url: str) -> None:
    """What an earlier start of the API would have left there: it needs no registry then."""
    rows = [BookText(*row) for row in given.read(database_url, select_training_rows())]
    (folder / "1-run").mkdir(parents=True)
    Tfidf().fit(rows).save(folder / "1-run")
    version = ModelVersion(Tfidf.name, "1", "run", given.FIRST_CRAWL, {})
    (folder / LAST).write_bytes(TypeAdapter(Last).dump_json(Last("1-run", version, {})))


def _start_files(folder: Path, upstream: str, change: Callable[[str], str] = str) -> tuple[int, int]:
    https_port, http_port = given.free_port(), given.free_port()
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=localhost -addext"
    certificate = ["openssl", *request.split(), "subjectAltName=DNS:localhost"]
    certificate += ["-keyout", str(folder / "privkey.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(certificate, check=True, capture_output=True)
    values = {
        "BOOKCLUB_UPSTREAM": upstream,
        "SERVER_NAME": "localhost",
        "HTTP_PORT": str(http_port),
        "HTTPS_PORT": str(https_port),
        "IPV6": "" if HAS_IPV6 else "#",
        "TLS_FOLDER": str(folder),
        "ACCESS_LOG": str(folder / "access.log"),
    }
    text = Template(change(TEMPLATE.read_text())).safe_substitute(values)
    on_loopback = text.replace("listen [::]:", "listen [::1]:")
    on_loopback = re.sub(r"listen (?=\d)", "listen 127.0.0.1:", on_loopback)
    (folder / "bookclub.conf").write_text(on_loopback)
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
    (f"GET /books HTTP/1.1\r\n{HOST}X: a\x00b\r\n{CLOSE}", 400),
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


UNREADABLE = ["FOOBAR /books HTTP/1.1\r\n", "GET /books/\xff HTTP/1.1\r\n", "GET /books HTTP/1.1\r\nX: a\x01b\r\n"]


@pytest.mark.parametrize("raw", UNREADABLE, ids=["method", "byte", "control"])
def test_what_the_gateway_lets_through_and_the_api_cannot_read_is_a_problem(gateway: Gateway, raw: str) -> None:
    status, headers, body = send(gateway, raw + HOST + CLOSE, True)
    assert (status, headers["content-type"], json.loads(body)["status"]) == (400, given.PROBLEM, 400)


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
    for path in ("/metrics", "/.ready", "/metrics%0A", "/ready%0A", "/%0Ametrics"):
        given.problem_like(gateway.client.get(path), 404)
    assert gateway.client.get("/docs").is_success


@pytest.mark.parametrize("host", ["127.0.0.1", "10.1.2.3:8443", "any.example", "localhost"])
@pytest.mark.parametrize("is_tls", [True, False], ids=["tls", "plain"])
def test_a_load_balancer_may_ask_by_any_host_for_health_and_readiness_alone(
    gateway: Gateway, host: str, is_tls: bool
) -> None:
    def asked(method: str, path: str) -> tuple[int, bytes]:
        status, headers, body = send(gateway, f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{CLOSE}", is_tls)
        assert status < 400 or (headers["content-type"], json.loads(body)["status"]) == (given.PROBLEM, status)
        return status, body

    assert asked("GET", "/health") == (200, b'{"status":"ok"}')
    assert asked("HEAD", "/health") == (200, b"")
    assert asked("GET", "/ready") == asked("HEAD", "/ready") == (204, b"")
    assert asked("POST", "/health")[0] == asked("DELETE", "/ready")[0] == 405
    if host != "localhost":
        for path in ("/books", "/metrics", "/ready/", "/health/x", "/.ready"):
            assert asked("GET", path)[0] in {404, 421}


def test_who_asks_whether_it_is_ready_is_not_told_why_it_is_not(gateway: Gateway) -> None:
    with given.without_postgres(gateway.database_url):
        answer = gateway.client.get("/ready")
        given.problem_like(answer, 503)
        assert int(answer.headers["retry-after"]) > 0 and "checks" not in answer.json()
        assert "database" not in answer.text and gateway.client.get("/health").is_success
    given.wait_for(lambda: gateway.client.get("/ready").status_code == 204)


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
    given.wait_for(lambda: '"/books","status":' in gateway.log.read_text(errors="replace"))
    lines = [json.loads(line) for line in gateway.log.read_text(errors="replace").splitlines()]
    assert {"address", "method", "path", "status", "took_s", "request_id"} <= set(lines[-1])
    assert "in-the-" not in gateway.log.read_text(errors="replace")


def test_the_access_log_names_what_was_asked_also_where_the_gateway_answers(gateway: Gateway) -> None:
    gateway.client.post("/recommendations:batch?secret=in-the-query", content=b" " * 100_000)
    send(gateway, f"GET /x?secret=in-the-query HTTP/1.1\r\nHost: localhost\r\n{CLOSE}", False)
    send(gateway, f"PUT /x%20y HTTP/1.1\r\nHost: evil.example\r\n{CLOSE}", True)
    expected = {("POST", "/recommendations:batch", 413), ("GET", "/x", 308), ("PUT", "/x%20y", 421)}

    def logged() -> set[tuple[str, str, int]]:
        lines = [json.loads(line) for line in gateway.log.read_text(errors="replace").splitlines()]
        return {(line["method"], line["path"], line["status"]) for line in lines}

    given.wait_for(lambda: expected <= logged())  # in the order in which connections end, which is any
    assert "in-the-" not in gateway.log.read_text(errors="replace")
    assert gateway.log.with_name("other.log").read_text() == ""  # no server forgets to name the log


def test_an_ipv6_household_is_one_client_of_the_gateway(gateway: Gateway) -> None:
    def asked(address: str) -> int:
        return gateway.client.post("/login", content=b"x", headers={"x-test-address": address}).status_code

    assert 429 in [asked(f"2001:db8::{number:x}:1") for number in range(1, 40)]
    assert 429 not in [asked(f"2001:db8:0:{number:x}::1") for number in range(1, 40)]


@pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6")
def test_the_gateway_answers_by_ipv6(gateway: Gateway) -> None:
    for port in (gateway.client.base_url.port or 0, gateway.http_port):
        socket.create_connection(("::1", port), timeout=5).close()


def test_a_machine_without_ipv6_is_not_asked_for_it() -> None:
    text = Template(TEMPLATE.read_text()).safe_substitute(IPV6="#", HTTP_PORT="80", HTTPS_PORT="443")
    listening = [line.strip() for line in text.splitlines() if "listen " in line]
    assert sum(line.startswith("#listen [::]:") for line in listening) == 4
    assert sum(line.startswith(("listen 80", "listen 443")) for line in listening) == 4 == len(listening) - 4


class Impatient(threading.Thread):
    """An API that closes a connection, unanswered, when it is asked on one that was idle for 2 seconds: as one whose
    time is up just when a request is under way."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))

    def run(self) -> None:
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    @staticmethod
    def _answer(connection: socket.socket) -> None:
        with connection:
            since = time.monotonic()
            while (asked := connection.recv(65536)) and time.monotonic() - since < 2:
                assert asked.endswith(b"\r\n\r\n{}") or b"GET /health" in asked
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                since = time.monotonic()


def _in_a_tenth(text: str) -> str:
    """The times of the upstream and of bodies, shorter."""
    text = re.sub(r"(?s)(upstream .*?keepalive_timeout) 30s", r"\1 1s", text)
    return text.replace("client_body_timeout 10s", "client_body_timeout 1s")


def test_a_post_after_a_pause_is_answered_and_a_slow_body_ends_without_an_answer(tmp_path: Path) -> None:
    api = Impatient()
    api.start()
    port, http_port = _start_files(tmp_path, f"127.0.0.1:{api.listener.getsockname()[1]}", _in_a_tenth)
    nginx = subprocess.Popen([str(NGINX), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")])
    try:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "fullchain.pem"))
        with httpx.Client(base_url=f"https://localhost:{port}", verify=trusted, timeout=20) as client:
            given.wait_for(lambda: _is_up(client), 20)
            assert client.post("/predict", json={}).status_code == 204
            time.sleep(2.3)
            assert client.post("/predict", json={}).status_code == 204
            slow = Gateway(client, http_port, tmp_path / "access.log", "")
            with pytest.raises(http.client.RemoteDisconnected):
                send(slow, f"POST /predict HTTP/1.1\r\n{HOST}Content-Length: 9\r\n\r\n{{", True)
            given.wait_for(lambda: '"path":"/predict","status":408' in slow.log.read_text())
    finally:
        nginx.terminate()
        nginx.wait(10)
