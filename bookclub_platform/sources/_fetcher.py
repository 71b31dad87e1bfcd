"""URL -> Page, politely, from many threads: robots.txt, delay and concurrency limits, retries with backoff.

    with Fetcher(delay_s=0.5, concurrency=8, contact="us@example.org", shops=["http://books.toscrape.com"]) as fetcher:
        page = fetcher.fetch("http://books.toscrape.com/", "listing")

Each host has one gate for all threads, and a failure budget: a dead shop results in one ShopUnavailable, not in a
thousand timeouts. A Fetcher lives for one crawl, and so does what it knows about a host (robots.txt, that it is down).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self, overload
from urllib.parse import urljoin, urlsplit

from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError, TransientSourceError
from bookclub_platform.sources._charset import header
from bookclub_platform.sources._contract import CHECK_ADDRESS, FailedPage, Kind, Page, Unchanged, Validators
from bookclub_platform.sources._fetch import AGENT, Counters, Http, RequestFailed, environment, identity, is_whole
from bookclub_platform.sources._politeness import Budget, Gate, Patience, Robots
from bookclub_platform.sources._safety import Shops

MAX_REDIRECTS = 5
_CUT = "the page is cut short: there is no </html> at its end"

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Host:
    gate: Gate
    budget: Budget
    environment: dict[str, Any]
    lock: threading.Lock = field(default_factory=threading.Lock)
    robots: Robots | None = None
    robots_until: float = 0.0
    unavailable: str | None = None


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is requested; redirects do not change it. robots.txt is no page: it is not subject to robots.txt, and need
    not end with </html>."""

    kind: Kind
    attempts: int
    validators: Validators | None = None
    is_page: bool = True


class Fetcher:
    """Fetches pages from any number of threads; a context manager.

    Args:
        delay_s: seconds between the starts of two requests to one host; robots.txt may ask for more.
        concurrency: the maximum of concurrent requests, to one host and in total, and the number of threads.
        patience: attempts, timeouts, sizes.
        contact: e-mail or web address of whoever is responsible for the crawl, sent to the shop.
        shops: addresses of all hosts that may be requested; None: any host that the caller requests, without redirects
            to others.
        is_whole: whether a page is complete; one that is not is requested again.

    Raises:
        ConfigurationError: `contact` is not a valid one.
    """

    def __init__(
        self,
        *,
        delay_s: float,
        concurrency: int,
        patience: Patience | None = None,
        contact: str | None = None,
        shops: Iterable[str] | None = None,
        is_whole: Callable[[Page], bool] = is_whole,
    ) -> None:
        self.delay_s, self.concurrency, self.patience = delay_s, concurrency, patience or Patience()
        self._http = Http(self.patience, identity(contact))
        self._shops, self._is_whole = Shops(shops), is_whole
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
        """Start no more requests. Those in progress end by themselves, within their timeouts; this does not wait."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    def counters(self) -> Counters:
        """The counters since the start."""
        return replace(self._http.counters(), retries=self._retries)

    @overload
    def fetch(self, url: str, kind: Kind) -> Page: ...
    @overload
    def fetch(self, url: str, kind: Kind, validators: Validators | None) -> Page | Unchanged: ...
    def fetch(self, url: str, kind: Kind, validators: Validators | None = None) -> Page | Unchanged:
        """The page at `url`, or Unchanged: with `validators` the request is conditional.

        A page that is still cut short at the last attempt is returned as received, for its parser to judge.

        Raises:
            ShopUnavailable: the host does not respond, or refuses visits: stop.
            TransientSourceError, PermanentSourceError: this page cannot be fetched.
        """
        return self._pool.submit(self._page, url, kind, validators).result()

    def admit(self, url: str) -> None:
        """Wait at the host's gate, on behalf of a browser that then fetches by itself.

        Raises:
            ShopUnavailable, PermanentSourceError: as in `fetch`; robots.txt does not allow the page.
        """
        self._shops.check(url)
        host = self._host(url)
        if not self._robots(host, url).allows(url):
            raise PermanentSourceError(url, "robots.txt of the shop does not allow it")
        host.gate.wait(self._stopped)

    @overload
    def fetch_many(self, urls: Iterable[str], kind: Kind) -> Generator[Page | FailedPage, None, None]: ...
    @overload
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None
    ) -> Generator[Page | Unchanged | FailedPage, None, None]: ...
    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None = None
    ) -> Generator[Page | Unchanged | FailedPage, None, None]:
        """Each page as it arrives, in no order. `urls` is read only a little ahead of what is yielded.

        Args:
            validators: URL -> validators of the known version of the page.

        Raises:
            ShopUnavailable: as in `fetch`; pages in progress are dropped.
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
        self._shops.check(url)
        return self._follow(url, _Wish(kind, self.patience.attempts, validators))

    def _follow(self, url: str, wish: _Wish) -> Page | Unchanged:
        for _ in range(MAX_REDIRECTS + 1):
            host = self._host(url)
            if wish.is_page and not self._robots(host, url).allows(url):
                raise PermanentSourceError(url, "robots.txt of the shop does not allow it")
            page = self._stubborn(host, url, wish)
            location = _location(page)
            if location is None:
                return page
            self._shops.check(location, redirected_from=url)
            url = location
        raise PermanentSourceError(url, f"more than {MAX_REDIRECTS} redirects")

    def _host(self, url: str) -> _Host:
        name = urlsplit(url).netloc.lower()
        with self._lock:
            if name not in self._hosts:
                gate = Gate(self.delay_s, self.patience.brisk_s)
                self._hosts[name] = _Host(gate, Budget(self.patience.failures_ahead), environment(url))
            return self._hosts[name]

    def _robots(self, host: _Host, url: str) -> Robots:
        with host.lock:
            if host.robots is None or time.monotonic() > host.robots_until:
                host.robots = self._read_robots(host, urljoin(url, "/robots.txt"))
                host.robots_until = time.monotonic() + self.patience.robots_age_s
                self._set_delay(host, url, host.robots.delay_s)
            return host.robots

    def _set_delay(self, host: _Host, url: str, wanted_s: float) -> None:
        if wanted_s > self.patience.longest_wait_s:
            host.unavailable = (
                f"robots.txt asks for {wanted_s:g} s between requests, and we wait {self.patience.longest_wait_s:g} s "
                "at most. Ask the shop, or collect another"
            )
            raise ShopUnavailable(url, host.unavailable)
        host.gate.delay_s = max(self.delay_s, wanted_s)
        if host.gate.delay_s > self.delay_s:
            _log.warning("%s: robots.txt asks for %g s between requests", url, wanted_s)

    def _read_robots(self, host: _Host, url: str) -> Robots:
        """RFC 9309: a host without robots.txt allows everything; one that cannot deliver it allows nothing, unless we
        still have an earlier version."""
        try:
            answer = self._follow(url, _Wish("listing", self.patience.robots_attempts, is_page=False))
            return Robots.from_text(answer.body if isinstance(answer, Page) else b"", AGENT)
        except SourceError as error:
            failure = error.__cause__
            if isinstance(failure, RequestFailed) and 400 <= (failure.status or 0) < 500 and not failure.is_retryable:
                return Robots.from_text(b"", AGENT)
            if host.robots is not None and host.unavailable is None:
                _log.warning("%s: cannot be read again, its last version stands: %s", url, error.reason)
                return host.robots
            host.unavailable = host.unavailable or f"{error.reason}. {CHECK_ADDRESS}"
            raise ShopUnavailable(url, host.unavailable) from error

    def _stubborn(self, host: _Host, url: str, wish: _Wish) -> Page | Unchanged:
        """One page or redirect, requested until it arrives, it is clear that it will not, or the attempts run out."""
        for attempt in itertools.count(1):
            if host.unavailable:
                raise ShopUnavailable(url, host.unavailable)
            host.gate.wait(self._stopped)
            if self._stopped.is_set():
                raise TransientSourceError(url, "the crawl was stopped")
            try:
                page = self._ask(host, url, wish)
                if attempt < wish.attempts and self._is_cut(page, wish):
                    raise RequestFailed(_CUT, is_retryable=True)
            except RequestFailed as failure:
                self._judge(host, url, failure, wish.attempts - attempt)
                self._pause(host, failure, attempt - 1 if wish.is_page else 0)
            else:
                host.budget.earn()
                return page
        raise AssertionError("unreachable")

    def _ask(self, host: _Host, url: str, wish: _Wish) -> Page | Unchanged:
        """One request, whose duration the host's gate takes into account."""
        started = time.monotonic()
        try:
            page = self._http.ask(url, wish.kind, wish.validators, host.environment)
        except RequestFailed as failure:
            if failure.status is not None:
                self._learn(host, url, time.monotonic() - started, is_page=False)
            raise
        self._learn(host, url, time.monotonic() - started, is_page=True)
        return page

    def _learn(self, host: _Host, url: str, took_s: float, is_page: bool) -> None:
        if host.gate.learn(took_s, is_page):
            _log.warning("%s: the shop answers slowly (%.1f s): it is asked less often", url, host.gate.usual_s)

    def _is_cut(self, page: Page | Unchanged, wish: _Wish) -> bool:
        return wish.is_page and isinstance(page, Page) and page.status == 200 and not self._is_whole(page)

    def _judge(self, host: _Host, url: str, failure: RequestFailed, attempts_left: int) -> None:
        """Return if the request is to be retried, else raise the final error."""
        reason, wait_s = failure.reason, failure.wait_s or 0
        if not failure.is_retryable:
            host.budget.earn()  # a definite refusal is a response: the shop is up
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
        pause_s = self.patience.backoff_s(retry)
        if failure.wait_s is not None:
            host.gate.hold(failure.wait_s)
        elif failure.status == 429:
            host.gate.hold(pause_s)  # "too many requests" concerns all threads
        self._stopped.wait(pause_s)


def _location(page: Page | Unchanged) -> str | None:
    if isinstance(page, Unchanged) or page.status == 200:
        return None
    location = header(page.headers, "location") or ""
    try:
        return urljoin(page.url, location)
    except ValueError as error:
        raise PermanentSourceError(page.url, f"redirects to {location!r}, which is no address") from error
