"""A server on loopback that does what shops do on a bad day: path -> an Answer, told the number of the visit."""

from __future__ import annotations

import contextlib
import gzip
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer

from bookclub_platform_tests import local_http

BODY = "<html>£51.77</html>".encode()
Answer = Callable[["Handler", int], None]


class Handler(local_http.Handler):
    server: Misbehaving

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.starts.append((self.path, time.monotonic()))
            self.server.visits[self.path] += 1
            visit = self.server.visits[self.path]
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.most_under_way, self.server.under_way)
        try:
            self.server.answers.get(self.path, self.server.otherwise)(self, visit)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def say(self, status: int, body: bytes = BODY, **headers: str | None) -> None:
        super().say(status, body, **{"Content_Type": "text/html", **headers})


class Misbehaving(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, otherwise: Answer | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.otherwise = otherwise or ok
        self.answers: dict[str, Answer] = {"/robots.txt": status(404)}
        self.visits: Counter[str] = Counter()
        self.starts: list[tuple[str, float]] = []
        self.under_way = self.most_under_way = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is no news here."""


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


@contextlib.contextmanager
def open_shop(otherwise: Answer | None = None) -> Iterator[Misbehaving]:
    with local_http.in_thread(Misbehaving(otherwise)) as server:
        yield server
        server.released.set()


def _cut(body: bytes, has_length: bool) -> Answer:
    """Half a page that ends like a whole one: with the length of what is left, or by closing."""

    def answer(handler: Handler, visit: int) -> None:
        half = body[: len(body) // 2]
        handler.say(200, half, Content_Length=str(len(half)) if has_length else None, Connection="close")
        handler.close_connection = True

    return answer


def moody(page: Callable[[str], bytes | None], share: float, seed: int) -> Answer:
    """The pages of a shop, but that share of the answers is one of thirteen kinds of trouble, drawn at random."""
    draw, lock = random.Random(seed), threading.Lock()

    def answer(handler: Handler, visit: int) -> None:
        body = page(handler.path)
        with lock:
            noise = draw.randbytes(3000)
            troubles: list[Answer] = [
                *(status(code) for code in (500, 502, 503, 429)),
                status(503, Retry_After="0"),
                status(429, Retry_After="Fri, 21 Nov 2025 09:00:00 GMT"),
                *(reset, hang, not_http, lambda handler, _: handler.say(200, noise)),
                lambda handler, _: handler.say(200, body or b"", Content_Encoding="gzip"),
                *(_cut(body or b"", has_length) for has_length in (True, False)),
            ]
            trouble = draw.choice(troubles) if draw.random() < share else None
        if trouble is not None:
            return trouble(handler, visit)
        return handler.say(200, body) if body is not None else handler.say(404, b"")

    return answer
