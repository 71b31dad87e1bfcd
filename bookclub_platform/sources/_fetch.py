"""One request -> Page, Unchanged or RequestFailed. The only module that uses requests; _fetcher.py adds the politeness.

http = Http(Patience(), identity(contact=None))
page = http.ask("http://books.toscrape.com/", "listing", None, environment("http://books.toscrape.com/"))

This module bounds what a hostile response can cost: time, bytes on the wire and decoded, headers, and its origin.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import requests
import urllib3

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.sources._charset import header
from bookclub_platform.sources._contract import Kind, Page, Unchanged, Validators
from bookclub_platform.sources._politeness import Patience, retry_after_s
from bookclub_platform.sources._safety import AddressRefused
from bookclub_platform.sources._transport import BoundedAdapter, TooLarge

AGENT = "bookclub-platform"
MOST_TIMINGS = 10_000
_CHUNK_BYTES = 64 * 1024
_TEXT_KINDS = {"listing", "book"}
_NEVER_TEXT = ("image/", "audio/", "video/", "font/", "application/pdf")
_TAIL_BYTES = 4096  # some pages have statistics and comments after their end
_CODING_HEADERS = {"content-encoding", "transfer-encoding", "content-length"}


@dataclass(slots=True)
class Counters:
    """Counts of requests and responses: `requests` includes retries and robots.txt; `bytes` of bodies as on the wire.

    Attributes:
        timings: (time.monotonic at the start, seconds to the end of the response, status or 0) of the last MOST_TIMINGS
            of the `timed` requests, so that memory does not grow with the crawl.
    """

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    timings: deque[tuple[float, float, int]] = field(default_factory=lambda: deque(maxlen=MOST_TIMINGS))
    timed: int = 0

    def time(self, started: float, status: int) -> None:
        """Record the timing of a request that began at `started` and has just ended."""
        self.timings.append((started, time.monotonic() - started, status))
        self.timed += 1

    def copy(self) -> Counters:
        statuses, timings = Counter(self.statuses), self.timings.copy()
        return Counters(self.requests, self.retries, self.bytes, statuses, timings, self.timed)

    def __sub__(self, before: Counters) -> Counters:
        timed = self.timed - before.timed
        return Counters(
            self.requests - before.requests,
            self.retries - before.retries,
            self.bytes - before.bytes,
            self.statuses - before.statuses,
            deque(list(self.timings)[-timed:] if timed else ()),
            timed,
        )


class RequestFailed(Exception):
    """A request returned no page.

    Attributes:
        status: of the response, None if there was none.
        wait_s: the pause that the host asks for before the next request, None if it asks for none.
    """

    def __init__(self, reason: str, is_retryable: bool, status: int | None = None, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.is_retryable, self.status, self.wait_s = reason, is_retryable, status, wait_s


class WrongType(Exception):
    """The response is not text, where text is expected."""


def is_retryable(outcome: int | Exception) -> bool:
    """Whether a retry may succeed after that status or error. This is the only place that decides it."""
    if isinstance(outcome, int):
        return outcome in {408, 425, 429} or (500 <= outcome < 600 and outcome not in {501, 505})
    if isinstance(outcome, requests.exceptions.SSLError):
        return "CERTIFICATE_VERIFY_FAILED" not in str(outcome)
    # urllib3's own errors occur while a body is read: it broke off, stalled, or its compression is damaged.
    return isinstance(outcome, requests.ConnectionError | requests.Timeout | urllib3.exceptions.HTTPError)


class _Session(requests.Session):
    _alike: requests.PreparedRequest | None = None

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: even when it does not follow redirects, requests would prepare to, read the whole body without a limit,
        and fail on a malformed address."""
        return None

    def ask(self, url: str, headers: dict[str, str], **options: Any) -> requests.Response:
        """Like `get`, but what all requests share is prepared only once (0.71 -> 0.58 ms CPU per page). Does not follow
        redirects, and does not read the body yet."""
        if self._alike is None:
            self._alike = self.prepare_request(requests.Request("GET", "http://any.invalid/"))
        request = self._alike.copy()
        request.prepare_url(url, None)
        request.prepare_cookies(self.cookies)
        request.headers.update(headers)
        return self.send(request, stream=True, allow_redirects=False, **options)


class Http:
    """One keep-alive session per thread, and counters over all of them."""

    def __init__(self, patience: Patience, identity: dict[str, str]) -> None:
        self._patience, self._identity = patience, identity
        self._timeouts_s = (patience.connect_timeout_s, patience.read_timeout_s)
        self._counters = Counters()
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sessions: list[_Session] = []

    def ask(self, url: str, kind: Kind, validators: Validators | None, options: dict[str, Any]) -> Page | Unchanged:
        """The response as a Page: status 200, or a redirect, which is not followed. Raises RequestFailed.

        Args:
            validators: of the known version of the page; without them, Unchanged is never returned.
            options: from `environment`.
        """
        conditions = _conditions(validators)
        started, status = time.monotonic(), 0
        with self._lock:
            self._counters.requests += 1
        try:
            with self._session().ask(url, conditions, timeout=self._timeouts_s, **options) as answer:
                status = answer.status_code
                if status == 304 and conditions:
                    return Unchanged(url, _headers(answer), kind, datetime.now(UTC))
                return self._page(answer, url, kind)
        except (
            requests.RequestException,
            urllib3.exceptions.HTTPError,
            TooLarge,
            WrongType,
            AddressRefused,
        ) as error:
            raise RequestFailed(_reason(error), is_retryable(error)) from error
        finally:
            with self._lock:
                self._counters.time(started, status)
                if status:
                    self._counters.statuses[status] += 1

    def _page(self, answer: requests.Response, url: str, kind: Kind) -> Page:
        status = answer.status_code
        try:
            _check_headers(answer, kind, self._patience)
            if status != 200 and not answer.is_redirect:
                wait_s = retry_after_s(answer.headers.get("Retry-After"), datetime.now(UTC))
                reason = f"the shop answers {status} {answer.reason}".rstrip()
                raise RequestFailed(reason, is_retryable(status), status, wait_s)
            body = _body(answer, self._patience)
        finally:
            with self._lock:
                self._counters.bytes += answer.raw.tell()
        return Page(url, status, _headers(answer), body, kind, datetime.now(UTC))

    def counters(self) -> Counters:
        """A copy of the counters."""
        with self._lock:
            return self._counters.copy()

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _session(self) -> _Session:
        session: _Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = _Session()
            session.headers.update(self._identity)
            for scheme in ("http://", "https://"):
                session.mount(scheme, BoundedAdapter(self._patience))
            session.trust_env = False  # see environment
            with self._lock:
                self._sessions.append(session)
        return session


def identity(contact: str | None) -> dict[str, str]:
    """The headers that identify the crawler, with a contact for the shop: an e-mail or web address. Raises
    ConfigurationError."""
    if not contact:
        return {"User-Agent": f"{AGENT} (a crawler that obeys robots.txt)"}
    if not contact.isascii() or not contact.isprintable() or set(contact) & set("() "):
        raise ConfigurationError(
            f"BOOKCLUB_CRAWL_CONTACT is {contact!r}: give one e-mail address or one web address, in ASCII, no brackets."
        )
    headers = {"User-Agent": f"{AGENT} (+{contact}; a crawler that obeys robots.txt)"}
    return headers | ({"From": contact} if "@" in contact and "/" not in contact else {})  # RFC 9110, 10.1.2


def _conditions(validators: Validators | None) -> dict[str, str]:
    """The headers of a conditional request: validators as received, also weak ones. One that cannot be a header value
    is left out; without any, the page is downloaded."""
    fields = {
        "If-None-Match": validators and validators.etag,
        "If-Modified-Since": validators and validators.last_modified,
    }
    return {name: value for name, value in fields.items() if value and value.isascii() and value.isprintable()}


def environment(url: str) -> dict[str, Any]:
    """Proxies and certificates that the environment sets for a host, read once: requests would do so for each page."""
    found = requests.Session().merge_environment_settings(url, {}, None, None, None)
    return {"proxies": found["proxies"], "verify": found["verify"]}


def _check_headers(answer: requests.Response, kind: Kind, patience: Patience) -> None:
    """Refuse what can be refused before the body is read."""
    size = sum(len(name) + len(value) + 4 for name, value in answer.raw.headers.items())
    if size > patience.max_header_bytes:
        raise TooLarge(f"has {size} bytes of headers, and we take {patience.max_header_bytes}")
    length = answer.headers.get("Content-Length", "")
    if length.isdecimal() and float(length) > patience.max_bytes:
        raise TooLarge(f"is larger than {patience.max_bytes} bytes")
    content_type = answer.headers.get("Content-Type", "").strip().lower()
    if answer.status_code == 200 and kind in _TEXT_KINDS and content_type.startswith(_NEVER_TEXT):
        raise WrongType(f"is {content_type.partition(';')[0]}, where a page is due")


def _body(answer: requests.Response, patience: Patience) -> bytes:
    """The decoded body, decompressed in chunks: a decompression bomb is detected within its first 16 MB."""
    body = bytearray()
    while chunk := answer.raw.read1(_CHUNK_BYTES, decode_content=True):
        body += chunk
        if len(body) > patience.max_bytes:
            raise TooLarge(f"is larger than {patience.max_bytes} bytes")
    return bytes(body)


def is_whole(page: Page) -> bool:
    """Whether a page ends as its type must. HTML has to close: a shop, or a proxy in front of it, that breaks off in
    the middle may still signal a complete response. Other types have no such mark and pass."""
    content_type = header(page.headers, "content-type")
    if content_type is None:
        content_type = "text/html" if page.body.lstrip()[:1] == b"<" else ""
    content_type = content_type.strip().lower()
    if page.kind not in _TEXT_KINDS or not content_type.startswith(("text/html", "application/xhtml")):
        return True
    return b"</html" in page.body[-_TAIL_BYTES:].replace(b"\0", b"").lower()  # without the zeros of UTF-16


def _headers(answer: requests.Response) -> tuple[tuple[str, str], ...]:
    """The headers as received. Those that describe the body's coding are renamed, as web archives do, since they do not
    match the decoded body."""
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
