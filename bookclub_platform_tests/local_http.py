"""A handler -> a server of it on a free port of loopback, until the block ends.

with served(Handler) as address: ...                  # http://127.0.0.1:PORT
with in_thread(ThreadingHTTPServer(...)) as server: ... # one of another class
with changing_shop() as shop: ...                     # the sandbox's pages, which `shop.change` may alter
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

from bookclub_platform import sandbox
from bookclub_platform.sandbox.pages import Shop

Server = TypeVar("Server", bound=ThreadingHTTPServer)
POLL_S = 0.02  # half a second by default, for which each `shutdown` waits


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Handler(BaseHTTPRequestHandler):
    """Keeps connections open, and writes nothing to the log."""

    protocol_version = "HTTP/1.1"

    def say(self, status: int, body: bytes = b"", **headers: str | None) -> None:
        """A header that is None is left out."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return None


@contextlib.contextmanager
def in_thread(server: Server) -> Iterator[Server]:
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": POLL_S}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def served(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    with in_thread(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@dataclass
class ChangingShop:
    """The sandbox's shop; each of its pages goes through `change(path, page)`."""

    url: str
    change: Callable[[str, str], str] = lambda _, page: page


@contextlib.contextmanager
def changing_shop(books: int, seed: int = 2) -> Iterator[ChangingShop]:
    shop, changing = Shop(sandbox.generate(books, seed)), ChangingShop("")

    class Pages(Handler):
        def do_GET(self) -> None:
            page = shop.page(self.path.removeprefix("/"))
            body = page.body if page else b"not found"
            if page and self.path.endswith(".html"):
                body = changing.change(self.path, body.decode()).encode()
            self.say(200 if page else 404, body, Content_Type="text/html; charset=utf-8")

    with served(Pages) as changing.url:
        yield changing
