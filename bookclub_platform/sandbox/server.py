"""(books, seed) -> the shop over HTTP: a raw ASGI application in one uvicorn process.

`serve` stays in the foreground until SIGINT or SIGTERM; `running` is for tests and lives in a thread.
"""

from __future__ import annotations

import errno
import hashlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from bookclub_platform.core.errors import ConfigurationError, PortTaken

from .catalogue import generate
from .html_frame import NOT_FOUND
from .pages import Page, Shop
from .script_shop import ScriptShop

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Header = tuple[bytes, bytes]

SAVED = b"Fri, 24 Jun 2016 09:29:00 GMT"  # the day that every page names as its making
START_S = 60.0


class ShopApp:
    """ASGI: GET and HEAD of the shop's pages, with an ETag from their bytes; everything else is 404 or 405.

    There is no If-Modified-Since: two shops of different seeds have the same date, and would answer 304 wrongly.
    """

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        status, headers, body = self.answer(scope)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    def answer(self, scope: Scope) -> tuple[int, list[Header], bytes]:
        if scope["method"] not in ("GET", "HEAD"):
            return 405, [(b"allow", b"GET, HEAD"), (b"content-length", b"0")], b""
        page = self.shop.page(scope["path"].removeprefix("/"))
        if page is None:
            missing = Page(NOT_FOUND.encode())
            return 404, _described(missing), missing.body
        etag = b'"' + hashlib.blake2b(page.body, digest_size=8).hexdigest().encode() + b'"'
        validators = [(b"etag", etag), (b"last-modified", SAVED)]
        if _is_known(scope["headers"], etag):
            return 304, validators, b""
        return 200, _described(page) + validators, page.body


def _described(page: Page) -> list[Header]:
    return [(b"content-type", page.media_type.encode()), (b"content-length", str(len(page.body)).encode())]


def _is_known(headers: list[Header], etag: bytes) -> bool:
    """Whether If-None-Match names this ETag (weakly compared, RFC 9110) or any."""
    known = {
        tag.strip().removeprefix(b"W/")
        for name, value in headers if name == b"if-none-match"
        for tag in value.split(b",")
    }  # fmt: skip
    return etag in known or b"*" in known


class _Server(uvicorn.Server):
    """uvicorn, which calls `announce` as soon as it listens."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self.announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.announce()


def serve(
    books: int = 1000,
    seed: int = 0,
    host: str = "127.0.0.1",
    port: int = 0,
    setting: str = "--port",
    is_script: bool = False,
) -> None:
    """Run the shop until SIGINT or SIGTERM; port 0 takes a free one; `setting` is what an error tells people to change.
    With `is_script` its pages are empty until a browser renders them.

    Prints `<n> pages at http://<host>:<port>/` once it listens. Raises PortTaken, or ConfigurationError for an
    address that this machine does not have.
    """
    with _listening(host, port, setting) as listener:
        shop = _shop(books, seed, is_script)
        line = f"{shop.page_count} pages at {_url(listener)}/"
        server = _Server(_config(shop), lambda: print(line, flush=True))
        with _ending_on_signals(server):
            server.run(sockets=[listener])


@contextmanager
def running(books: int = 1000, seed: int = 0, is_script: bool = False) -> Iterator[str]:
    """The shop in a thread on a free port of loopback -> its address without a slash at the end."""
    with _listening("127.0.0.1", 0, "--port") as listener:
        listens = threading.Event()
        server = _Server(_config(_shop(books, seed, is_script)), listens.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="sandbox-shop", daemon=True)
        thread.start()
        try:
            if not listens.wait(START_S):
                raise ConfigurationError(f"The sandbox shop did not listen within {START_S:.0f} s.")
            yield _url(listener)
        finally:
            server.should_exit = True
            thread.join()


def _shop(books: int, seed: int, is_script: bool) -> Shop:
    return (ScriptShop if is_script else Shop)(generate(books, seed))


def _config(shop: Shop) -> uvicorn.Config:
    return uvicorn.Config(
        ShopApp(shop), lifespan="off", access_log=False, log_level="warning", timeout_graceful_shutdown=2
    )


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _listening(host: str, port: int, setting: str) -> Iterator[socket.socket]:
    """A bound socket: taken before the books are made, so that a taken port is told at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(host, port, setting) from error
            raise ConfigurationError(f"The sandbox shop cannot listen on {host}:{port}: {error}.") from error
        yield listener


@contextmanager
def _ending_on_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server and nothing else: uvicorn raises them again afterwards, to what stands here."""

    def end(*_: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
