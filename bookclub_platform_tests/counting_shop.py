"""The sandbox shop behind a server that counts: path -> requests, bytes as on the wire; a test may change its pages."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer

from bookclub_platform.sandbox import generate
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sandbox.server import ShopApp
from bookclub_platform_tests.local_http import Handler, in_thread

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


class CountingShop(ThreadingHTTPServer):
    """`requests`, `statuses` and `sent_bytes` (heads and bodies) since `forget`; `changed` has pages that replace the
    shop's own, as path -> what to make of the answer; paths that `fails` get an error."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, books: int, delay_s: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.app = ShopApp(Shop(generate(books, 7)))
        self.delay_s = delay_s
        self.changed: dict[str, Callable[[Answer], Answer]] = {}
        self.fails: Callable[[str], bool] = lambda _: False
        self.on_request: Callable[[int], None] = lambda _: None
        self.lock = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.forget()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is what these tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    def forget(self) -> None:
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.sent_bytes = 0


class _Handler(Handler):
    server: CountingShop

    def do_GET(self) -> None:
        shop = self.server
        with shop.lock:
            shop.requests[self.path] += 1
            count = shop.requests.total()
        shop.on_request(count)
        time.sleep(shop.delay_s)
        headers = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        answer = shop.app.answer({"method": "GET", "path": self.path, "headers": headers})
        status, fields, body = shop.changed.get(self.path, lambda same: same)(answer)
        if shop.fails(self.path):
            status, fields, body = 500, [(b"content-length", b"0")], b""
        lines = [f"HTTP/1.1 {status} -".encode(), *(name + b": " + value for name, value in fields), b"", body]
        whole = b"\r\n".join(lines)
        with shop.lock:
            shop.statuses[status] += 1
            shop.sent_bytes += len(whole)
        with contextlib.suppress(ConnectionError):
            self.wfile.write(whole)


@contextlib.contextmanager
def counting_shop(books: int, delay_s: float = 0.0) -> Iterator[CountingShop]:
    with in_thread(CountingShop(books, delay_s)) as shop:
        yield shop
