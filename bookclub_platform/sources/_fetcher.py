"""URL -> Page, politely, from many threads: robots.txt, a delay and a concurrency per host, retries with patience.

    with Fetcher(delay_s=0.5, concurrency=8) as fetcher:
        page = fetcher.fetch("http://books.toscrape.com/", "listing")

Each host has one gate for all threads, and a budget of failures: a dead shop ends in one ShopUnavailable, not in a
thousand timeouts. A Fetcher lives for one crawl; what it learned of a host (robots.txt, that it is down) holds as long.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, overload
from urllib.parse import urljoin, urlsplit

from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError, TransientSourceError
from bookclub_platform.sources._contract import (
    CHECK_ADDRESS,
    FailedPage,
    Kind,
    Page,
    Unchanged,
    Validators,
    has_same_host,
)
from bookclub_platform.sources._fetch import AGENT, Counters, Http, RequestFailed, environment
from bookclub_platform.sources._politeness import Budget, Gate, Patience, Robots

MAX_REDIRECTS = 5

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Host:
    gate: Gate
    budget: Budget
    environment: dict[str, Any]
    lock: threading.Lock = field(default_factory=threading.Lock)
    robots: Robots | None = None
    unavailable: str | None = None


class Fetcher:
    """Fetches pages from any number of threads; a context manager.

    Args:
        delay_s: seconds between the starts of two requests to one host; robots.txt may ask for more.
        concurrency: requests under way at once, and threads.
        patience: attempts, timeouts, sizes.
    """

    def __init__(self, *, delay_s: float, concurrency: int, patience: Patience | None = None) -> None:
        self.delay_s, self.concurrency, self.patience = delay_s, concurrency, patience or Patience()
        self._http = Http(self.patience)
        self._retries = 0
        self._hosts: dict[str, _Host] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="fetch")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Start nothing more. Requests under way end by themselves, within their timeouts, and are not waited for."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def counters(self) -> Counters:
        """What happened since the start."""
        return replace(self._http.counters(), retries=self._retries)

    @overload
    def fetch(self, url: str, kind: Kind, validators: None = None) -> Page: ...

    @overload
    def fetch(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged: ...

    def fetch(self, url: str, kind: Kind, validators: Validators | None = None) -> Page | Unchanged:
        """The page at `url`; Unchanged only where `validators` were given.

        Raises:
            ShopUnavailable: the host does not answer, or wants no visit: stop.
            TransientSourceError, PermanentSourceError: this page cannot be had.
        """
        return self._pool.submit(self._page, url, kind, validators).result()

    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None = None
    ) -> Generator[Page | Unchanged | FailedPage, None, None]:
        """Each page as it comes, in no order. `urls` is read only a little ahead of what is yielded.

        Raises:
            ShopUnavailable: as `fetch`; pages that are under way are dropped.
        """
        rest, under_way = iter(urls), set[Future[Page | Unchanged | FailedPage]]()
        try:
            while True:
                for url in itertools.islice(rest, 2 * self.concurrency - len(under_way)):
                    known = validators(url) if validators is not None else None
                    under_way.add(self._pool.submit(self._outcome, url, kind, known))
                if not under_way:
                    return
                done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            for future in under_way:
                future.cancel()

    def _outcome(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged | FailedPage:
        try:
            return self._page(url, kind, validators)
        except ShopUnavailable:
            raise
        except SourceError as error:
            return FailedPage(url, kind, error.reason)

    def _page(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged:
        host = self._host(url)
        return self._follow(host, url, kind, self.patience.attempts, self._robots(host, url), validators)

    def _follow(
        self,
        host: _Host,
        url: str,
        kind: Kind,
        attempts: int,
        robots: Robots | None,
        validators: Validators | None = None,
    ) -> Page | Unchanged:
        for _ in range(MAX_REDIRECTS + 1):
            if robots is not None and not robots.allows(url):
                raise PermanentSourceError(url, "robots.txt of the shop does not allow it")
            page = self._stubborn(host, url, kind, attempts, validators)
            if isinstance(page, Unchanged):
                return page
            validators = None  # another page's
            location = _location(page)
            if location is None:
                return page
            if not has_same_host(location, url):
                raise PermanentSourceError(url, f"redirects to another host ({location}), where we do not go")
            url = location
        raise PermanentSourceError(url, f"more than {MAX_REDIRECTS} redirects")

    def _host(self, url: str) -> _Host:
        if not has_same_host(url, url):
            raise PermanentSourceError(url, "is no web address")
        name = urlsplit(url).netloc.lower()
        with self._lock:
            if name not in self._hosts:
                self._hosts[name] = _Host(Gate(self.delay_s), Budget(self.patience.failures_ahead), environment(url))
            return self._hosts[name]

    def _robots(self, host: _Host, url: str) -> Robots:
        with host.lock:
            if host.robots is None:
                host.robots = self._read_robots(host, urljoin(url, "/robots.txt"))
                host.gate.delay_s = max(self.delay_s, host.robots.delay_s)
                if host.gate.delay_s > self.delay_s:
                    _log.warning("%s: robots.txt asks for %g s between requests", url, host.gate.delay_s)
            return host.robots

    def _read_robots(self, host: _Host, url: str) -> Robots:
        """RFC 9309: a host that has no robots.txt allows all; one that cannot answer for it allows nothing."""
        try:
            page = self._follow(host, url, "listing", self.patience.robots_attempts, None)
            return Robots.from_text(page.body if isinstance(page, Page) else b"", AGENT)
        except SourceError as error:
            failure = error.__cause__
            if isinstance(failure, RequestFailed) and 400 <= (failure.status or 0) < 500 and not failure.is_retryable:
                return Robots.from_text(b"", AGENT)
            host.unavailable = host.unavailable or f"{error.reason}. {CHECK_ADDRESS}"
            raise ShopUnavailable(url, host.unavailable) from error

    def _stubborn(
        self, host: _Host, url: str, kind: Kind, attempts: int, validators: Validators | None
    ) -> Page | Unchanged:
        """One page or redirect, asked for until it comes, it is clear that it will not, or patience ends."""
        for attempt in itertools.count(1):
            if host.unavailable:
                raise ShopUnavailable(url, host.unavailable)
            host.gate.wait(self._stopped)
            if self._stopped.is_set():
                raise TransientSourceError(url, "the crawl was stopped")
            try:
                page = self._http.ask(url, kind, host.environment, validators)
            except RequestFailed as failure:
                self._judge(host, url, failure, attempts - attempt)
                self._pause(host, failure, attempt - 1)
            else:
                host.budget.earn()
                return page
        raise AssertionError("unreachable")

    def _judge(self, host: _Host, url: str, failure: RequestFailed, attempts_left: int) -> None:
        """Return if the request is to be tried again; raise what it has come to if not."""
        reason, wait_s = failure.reason, failure.wait_s or 0
        if not failure.is_retryable:
            host.budget.earn()  # a clear no is an answer: the shop is well
            raise PermanentSourceError(url, reason) from failure
        if not host.budget.spend():
            host.unavailable = (
                f"{self.patience.failures_ahead} more failures than answers, the last: {reason}. {CHECK_ADDRESS}"
            )
            raise ShopUnavailable(url, host.unavailable) from failure
        if attempts_left == 0:
            raise TransientSourceError(url, reason) from failure
        if wait_s > self.patience.longest_wait_s:
            raise TransientSourceError(url, f"{reason} and asks to come back in {wait_s:.0f} s") from failure

    def _pause(self, host: _Host, failure: RequestFailed, retry: int) -> None:
        with self._lock:
            self._retries += 1
        if failure.wait_s is not None:
            host.gate.hold(failure.wait_s)
        self._stopped.wait(self.patience.backoff_s(retry))


def _location(page: Page) -> str | None:
    if page.status == 200:
        return None
    return urljoin(page.url, next(value for name, value in page.headers if name.lower() == "location"))
