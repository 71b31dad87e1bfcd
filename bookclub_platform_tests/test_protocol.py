"""What a connection may send, and how long it may take: bounds of bytes and time, before there is a request at all."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from bookclub_platform_tests import api_fixtures as given
from serving.http import protocol
from serving.http.sizes import MAX_ADDRESS_BYTES, MAX_BODY_BYTES, MAX_HEADER_BYTES
from serving.run import OPTIONS

GATEWAY = Path(__file__).parents[1] / "deploy" / "gateway" / "bookclub.conf.template"
HEAD = b"GET /slow HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n"
SHORT_S = 0.4  # for what may take 10 s or 30 s outside of tests
SHORT = 60_000  # bytes, for which no writer is told to wait
LONG = 40 * 2**20  # bytes, more than any system keeps for a connection


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    app = FastAPI()

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(3 * SHORT_S)
        return "done"

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/refused")
    async def refused() -> str:
        return "without a look at the body"

    @app.get("/in-parts")
    async def in_parts() -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            await asyncio.sleep(SHORT_S)
            yield "first"
            yield "second"

        return StreamingResponse(parts())

    @app.get("/short")
    async def short() -> Response:
        return Response(b"x" * SHORT)

    @app.get("/long")
    async def long() -> Response:
        return Response(b"x" * LONG)

    with given.serving(app) as client:
        yield client


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_WITHIN_S", SHORT_S)
    monkeypatch.setattr(protocol, "BODY_WITHIN_S", SHORT_S)
    monkeypatch.setattr(protocol, "TAKEN_WITHIN_S", SHORT_S)


@contextlib.contextmanager
def connected(client: httpx.Client) -> Iterator[socket.socket]:
    url = client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=10) as connection:
        yield connection


def heard(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def sent_until_closed(connection: socket.socket, piece: bytes, most: int) -> int:
    """How many bytes go through, in pieces, before the server closes."""
    sent = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < most:
            sent += connection.send(piece)
            time.sleep(0.002)
    return sent


@pytest.mark.parametrize(("start", "status"), [(HEAD + b"X: ", 431), (b"GET /", 414)])
def test_headers_and_addresses_without_end_are_refused_long_before_memory_is_full(
    client: httpx.Client, start: bytes, status: int
) -> None:
    with connected(client) as connection:
        connection.sendall(start)
        connection.settimeout(0.02)
        answer = b""
        sent = 0
        while not answer and sent < 2**20:
            sent += connection.send(b"a" * 16384)
            with contextlib.suppress(TimeoutError):
                answer = connection.recv(65536)
        assert sent <= MAX_ADDRESS_BYTES + MAX_HEADER_BYTES + 2 * 65536, "as soon as it is over"
    assert int(answer.split()[1]) == status and b"application/problem+json" in answer
    assert b"connection: close" in answer and b"x-content-type-options: nosniff" in answer
    assert client.get("/slow").json() == "done"


def test_a_body_or_trailers_without_end_end_the_connection(client: httpx.Client) -> None:
    for path in (b"/length", b"/refused"):
        with connected(client) as connection:
            connection.sendall(b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" % path)
            sent = sent_until_closed(connection, b"X: %b\r\n" % (b"a" * 60_000), 4 * protocol.MAX_REQUEST_BYTES)
        assert sent < 2 * protocol.MAX_REQUEST_BYTES
    assert MAX_BODY_BYTES * 6 < protocol.MAX_REQUEST_BYTES, "in chunks of a byte"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("sent", [b"", b"\r\n", b"GE", HEAD, POST + b"half"])
def test_what_never_ends_is_closed(client: httpx.Client, sent: bytes) -> None:
    with connected(client) as connection:
        connection.sendall(sent)
        assert heard(connection) == b""
    with connected(client) as connection:  # likewise after a request that ended
        connection.sendall(POST + b"12345678" + sent)
        if sent.strip():
            assert b"\r\n\r\n8" in heard(connection)


@pytest.mark.usefixtures("hasty")
def test_who_drips_bytes_has_no_more_time_and_who_waits_for_an_answer_has(client: httpx.Client) -> None:
    with connected(client) as connection:
        connection.sendall(HEAD)
        started = time.monotonic()
        sent_until_closed(connection, b"X: y\r\n", 100_000)
        assert time.monotonic() - started < 20 * SHORT_S
    assert client.get("/slow").json() == "done", "three times as long as a request may take to come"
    with connected(client) as connection:
        for part in (HEAD[:9], HEAD[9:], b"\r\n"):
            connection.sendall(part)
            time.sleep(0.05)
        assert b'"done"' in connection.recv(65536)
        time.sleep(2 * SHORT_S)  # idle between requests, for which there are seconds in any case
        connection.sendall(POST + b"12345678")
        assert connection.recv(65536).endswith(b"\r\n\r\n8")


@pytest.mark.usefixtures("hasty")
def test_who_does_not_read_an_answer_is_not_waited_for_and_who_reads_slowly_is(client: httpx.Client) -> None:
    def read(after_s: float, pause_s: float) -> int:
        with connected(client) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            time.sleep(after_s)
            found = 0
            with contextlib.suppress(ConnectionResetError):
                while part := connection.recv(2**20):
                    found += len(part)
                    time.sleep(pause_s)
            return found

    assert read(after_s=4 * SHORT_S, pause_s=0) < LONG, "of what it had sent before"
    assert read(after_s=0, pause_s=SHORT_S / 200) > LONG, "slower than it could, and all the time"


@pytest.mark.usefixtures("hasty")
def test_the_end_of_an_answer_that_nobody_reads_is_not_waited_for_either(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = protocol.HttpProtocol.connection_made

    def narrow(self: protocol.HttpProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        made(self, transport)

    monkeypatch.setattr(protocol.HttpProtocol, "connection_made", narrow)

    def read(after_s: float) -> int:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            connection.connect((client.base_url.host, client.base_url.port))
            connection.sendall(b"GET /short HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            time.sleep(after_s)
            return len(heard(connection))

    assert read(after_s=0) > SHORT
    assert read(after_s=4 * SHORT_S) < SHORT, "of what it had sent before"


def test_the_gateway_closes_an_idle_connection_before_the_api_does() -> None:
    upstream = re.findall(r"upstream [^{]+{(.*?)}", GATEWAY.read_text(), re.DOTALL)
    assert upstream
    for block in upstream:
        told = re.search(r"keepalive_timeout (\d+)s;", block)
        assert (int(told[1]) if told else 60) < OPTIONS["timeout_keep_alive"]  # 60: nginx's own


def segments(connection: socket.socket) -> int:
    """That have come with data: `tcpi_data_segs_in` of Linux's tcp_info."""
    found: int = struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160), 152)[0]
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells how many segments came")
def test_an_answer_leaves_as_a_whole(client: httpx.Client) -> None:
    with connected(client) as connection:
        for number in range(1, 21):
            connection.sendall(POST + b"12345678")
            assert connection.recv(65536).endswith(b"\r\n\r\n8") and segments(connection) == number


def test_a_head_leaves_alone_where_the_body_is_still_made(client: httpx.Client) -> None:
    with connected(client) as connection:
        connection.sendall(b"GET /in-parts HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536).endswith(b"\r\n\r\n")
        assert heard(connection) == b"5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n"
