"""A server on loopback that does what shops do on a bad day: path -> an Answer, told the number of the visit."""

from __future__ import annotations

import contextlib
import gzip
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = "<html>£51.77</html>".encode()
Answer = Callable[["Handler", int], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Misbehaving

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.starts.append((self.path, time.monotonic()))
            self.server.visits[self.path] += 1
            visit = self.server.visits[self.path]
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            self.server.answers.get(self.path, ok)(self, visit)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def say(self, status: int, body: bytes = BODY, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "text/html", "Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


class Misbehaving(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Answer] = {"/robots.txt": status(404)}
        self.visits: Counter[str] = Counter()
        self.starts: list[tuple[str, float]] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"


def ok(handler: Handler, visit: int) -> None:
    handler.say(200)


def status(code: int, **headers: str) -> Answer:
    return lambda handler, _: handler.say(code, b"", **headers)


def robots(text: str) -> Answer:
    return lambda handler, _: handler.say(200, text.encode())


def slow(seconds: float) -> Answer:
    def answer(handler: Handler, visit: int) -> None:
        time.sleep(seconds)
        ok(handler, visit)

    return answer


def first(times: int, bad: Answer) -> Answer:
    return lambda handler, visit: (bad if visit <= times else ok)(handler, visit)


def reset(handler: Handler, visit: int) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def hang(handler: Handler, visit: int) -> None:
    handler.server.released.wait(10)
    handler.close_connection = True


def half_body(handler: Handler, visit: int) -> None:
    handler.say(200, BODY[:5], Content_Length=str(len(BODY)))
    handler.close_connection = True


def half_of_the_chunks(handler: Handler, visit: int) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"5\r\n<html\r\n")
    handler.close_connection = True


def trickle(handler: Handler, visit: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        while not handler.server.released.wait(0.05):
            handler.wfile.write(b"x")
    handler.close_connection = True


def not_http(handler: Handler, visit: int) -> None:
    handler.wfile.write(b"\x00\x01 nothing that a browser knows\r\n\r\n")
    handler.close_connection = True


def not_gzip(handler: Handler, visit: int) -> None:
    handler.say(200, BODY, Content_Encoding="gzip")


def gzipped(handler: Handler, visit: int) -> None:
    handler.say(200, gzip.compress(BODY), Content_Encoding="gzip")
