"""One request -> Page, or RequestFailed. The only file that imports requests; _fetcher.py asks it, politely.

http = Http(Patience())
page = http.ask("http://books.toscrape.com/", "listing", environment("http://books.toscrape.com/"))
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from bookclub_platform.sources._contract import Kind, Page, Unchanged, Validators
from bookclub_platform.sources._politeness import Patience, retry_after_s

AGENT = "bookclub-platform"
USER_AGENT = f"{AGENT} (a crawler that obeys robots.txt)"
_CHUNK_BYTES = 64 * 1024
_CODING_HEADERS = {"content-encoding", "transfer-encoding", "content-length"}


@dataclass(slots=True)
class Counters:
    """What was asked and what came: `requests` with retries and robots.txt; `bytes` of bodies as on the wire.

    Attributes:
        timings: (moment of time.monotonic, seconds to the end of the answer, status or 0) of each request.
    """

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    timings: list[tuple[float, float, int]] = field(default_factory=list)

    def copy(self) -> Counters:
        return Counters(self.requests, self.retries, self.bytes, Counter(self.statuses), list(self.timings))

    def __sub__(self, before: Counters) -> Counters:
        return Counters(
            self.requests - before.requests,
            self.retries - before.retries,
            self.bytes - before.bytes,
            self.statuses - before.statuses,
            self.timings[len(before.timings) :],
        )


class RequestFailed(Exception):
    """One request gave no page.

    Attributes:
        status: of the answer, None if there was none.
        wait_s: the pause that the host asks for before the next, None if it asks for none.
    """

    def __init__(self, reason: str, is_retryable: bool, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.is_retryable, self.status, self.wait_s = reason, is_retryable, status, wait_s


class TooLarge(Exception):
    """The body passes `Patience.max_bytes`."""


def is_retryable(outcome: int | Exception) -> bool:
    """Whether the request may do better a little later, after that status or error. Decided here and nowhere else."""
    if isinstance(outcome, int):
        return outcome in {408, 425, 429} or (500 <= outcome < 600 and outcome not in {501, 505})
    if isinstance(outcome, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(outcome)
    # urllib3's own errors come up while a body is read: it broke off, stalled, or its compression is damaged.
    return isinstance(outcome, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError)


class Http:
    """One keep-alive session per thread, and what went through all of them."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self._timeouts_s = (patience.connect_timeout_s, patience.read_timeout_s)
        self._counters = Counters()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def ask(
        self, url: str, kind: Kind, options: dict[str, Any], validators: Validators | None = None
    ) -> Page | Unchanged:
        """The answer as a Page: status 200, or a redirect, which is not followed. Raises RequestFailed.

        Args:
            options: from `environment`.
        """
        with self._lock:
            self._counters.requests += 1
        started, status = time.monotonic(), 0
        try:
            with self._session().get(
                url,
                stream=True,
                allow_redirects=False,
                timeout=self._timeouts_s,
                headers=_conditions(validators),
                **options,
            ) as answer:
                status = answer.status_code
                return self._page(answer, url, kind)
        except (requests.RequestException, urllib3.exceptions.HTTPError, TooLarge) as error:
            raise RequestFailed(_reason(error), is_retryable(error)) from error
        finally:
            with self._lock:
                self._counters.timings.append((started, time.monotonic() - started, status))

    def _page(self, answer: requests.Response, url: str, kind: Kind) -> Page | Unchanged:
        status = answer.status_code
        try:
            if status == 304:
                return Unchanged(url, _headers(answer), kind, datetime.now(UTC))
            if status != 200 and not answer.is_redirect:
                wait_s = retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))
                reason = f"the shop answers {status} {answer.reason}".rstrip()
                raise RequestFailed(reason, is_retryable(status), status, wait_s)
            body = _body(answer, self._patience)
        finally:
            with self._lock:
                self._counters.bytes += answer.raw.tell()
                self._counters.statuses[status] += 1
        return Page(url, status, _headers(answer), body, kind, datetime.now(UTC))

    def counters(self) -> Counters:
        """What happened so far, as a copy."""
        with self._lock:
            return self._counters.copy()

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.headers["User-Agent"] = USER_AGENT
            session.mount("http://", _PromptAdapter())
            session.trust_env = False  # see environment
            with self._lock:
                self._sessions.append(session)
        return session


def environment(url: str) -> dict[str, Any]:
    """Proxies and certificates that the environment sets for a host, asked once: requests would do so for each page."""
    found = requests.Session().merge_environment_settings(url, {}, None, None, None)
    return {"proxies": found["proxies"], "verify": found["verify"]}


def _body(answer: requests.Response, patience: Patience) -> bytes:
    """The decoded body. read1 hands over what has come, so that a trickle cannot outlast the deadline."""
    deadline, body = time.monotonic() + patience.page_timeout_s, bytearray()
    while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > patience.max_bytes:
            raise TooLarge(f"is larger than {patience.max_bytes} bytes")
        if time.monotonic() > deadline:
            raise requests.Timeout(f"not complete after {patience.page_timeout_s:.0f} s")
    return bytes(body)


def _conditions(validators: Validators | None) -> dict[str, str]:
    if validators is None:
        return {}
    fields = {"If-None-Match": validators.etag, "If-Modified-Since": validators.last_modified}
    return {name: value for name, value in fields.items() if value is not None}


def _headers(answer: requests.Response) -> tuple[tuple[str, str], ...]:
    """As received; what says that the body came coded is renamed, as web archives do, for it does not fit now."""
    headers = list(answer.raw.headers.items())
    is_coded = any(name.lower() in {"content-encoding", "transfer-encoding"} for name, _ in headers)
    return tuple(
        (f"X-Archive-Orig-{name}" if is_coded and name.lower() in _CODING_HEADERS else name, value)
        for name, value in headers
    )


def _reason(error: BaseException) -> str:
    """The innermost cause: requests wraps "Connection refused" three times."""
    while error.__context__ is not None:
        error = error.__context__
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


class _PromptConnection(HTTPConnection):
    """Acknowledges at once (Linux): a server that sends head and body apart, as Python's own does, else waits 40 ms
    for the delayed acknowledgement, on each request (182 against 1,700 pages/s on loopback)."""

    def getresponse(self) -> Any:
        if hasattr(socket, "TCP_QUICKACK") and self.sock is not None:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return super().getresponse()


class _PromptPool(HTTPConnectionPool):
    ConnectionCls = _PromptConnection


class _PromptAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme | {"http": _PromptPool}
