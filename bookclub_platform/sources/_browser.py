"""URL -> Page as rendered by a browser: headless Chromium, driven by selenium. The counterpart of a Fetcher.

    with BrowserFetcher(Browser("http://127.0.0.1:8765", "ol.row", timeout_s=20), Web()) as fetcher:
        page = fetcher.fetch("http://127.0.0.1:8765/", "listing")

It uses two tabs. One stays in the listings and follows the shop's navigation and pager by clicks, as a visitor does;
the other opens the books by address. For robots.txt, delay and identity it relies on a Fetcher, and waits for its gate.
The browser can reach only the shop's own host.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import psutil

from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, SourceError, TransientSourceError
from bookclub_platform.sources._contract import FailedPage, Kind, Page, Validators, has_same_host
from bookclub_platform.sources._fetch import Counters, identity, is_retryable
from bookclub_platform.sources._web import Web

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

_log = logging.getLogger(__name__)
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVERS = ("chromedriver",)
_FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",  # a container's /dev/shm is too small
    "--disable-sync",
    "--blink-settings=imagesEnabled=false",
)
_POLL_S = 0.02
_ATTEMPTS = 3  # each of which the browser itself has already retried
_DEAD_AFTER = 5  # after this many pages in a row that the browser could not open, the shop is given up
# The state of the displayed page: its address, whether it is loaded, its HTTP status, the elements that make it a page.
_SHOWN = """
const found = [...document.querySelectorAll(arguments[0])];
const answer = performance.getEntriesByType("navigation")[0];
return [location.href, document.readyState, answer ? answer.responseStatus : 0, found.map((e) => e.outerHTML).join("")];
"""
_LINK = "return [...document.querySelectorAll('a[href]')].find((link) => link.href === arguments[0]) || null;"


@dataclass(frozen=True, slots=True)
class Browser:
    """Which browser to use, and when a page of the shop at `address` is ready: once `shown` (CSS) selects an element.

    Attributes:
        timeout_s: per page; a page that is not ready by then is kept as it is, for the parser to reject.
        program, driver: paths; None: found on the PATH.
    """

    address: str
    shown: str
    timeout_s: float
    program: str | None = None
    driver: str | None = None

    def programs(self) -> tuple[str, str]:
        """(browser, driver) on this machine. Raises PermanentSourceError if one of them, or selenium, is missing."""
        program = self.program or next(filter(None, map(shutil.which, _BROWSERS)), None)
        driver = self.driver or next(filter(None, map(shutil.which, _DRIVERS)), None)
        if program is None or driver is None:
            lacking = "browser" if program is None else "driver"
            reason = f"needs a {lacking}: install Debian's chromium and chromium-driver, or set `{lacking}`"
            raise PermanentSourceError(self.address, reason)
        if importlib.util.find_spec("selenium") is None:
            raise PermanentSourceError(
                self.address, "needs selenium: .venv/bin/pip install -c constraints.txt -e '.[browser]'"
            )
        return program, driver

    def start(self, profile: str, contact: str | None) -> Chrome:
        """Start the browser and return it."""
        from selenium import webdriver

        program, driver = self.programs()
        options = webdriver.ChromeOptions()
        options.binary_location = program
        host = urlsplit(self.address).hostname
        flags = (
            f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}",
            f"--user-agent={identity(contact)['User-Agent']}",
        )
        for flag in (*_FLAGS, *flags, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
            options.add_argument(flag)
        chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
        chrome.set_page_load_timeout(self.timeout_s)
        return chrome


class BrowserFetcher:
    """A _contract.CrawlFetcher; a context manager. The browser starts with the first page that it may visit."""

    def __init__(self, browser: Browser, web: Web) -> None:
        self.browser, self.web = browser, web
        self._counters = Counters()
        self._failures = 0
        self._is_running = False

    def __enter__(self) -> Self:
        self.browser.programs()
        self._http = self.web.open()
        self._profile = tempfile.TemporaryDirectory(prefix="bookclub-browser-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._quit()
        self._http.close()
        self._profile.cleanup()

    def _quit(self) -> None:
        """Stop the browser, even if it no longer responds to its driver."""
        if not self._is_running:
            return
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        programs = self._programs()
        try:
            self._chrome.quit()
        except (WebDriverException, HTTPError) as error:
            _log.info("The browser did not end by itself: %s", error)
        self._is_running = False
        for program in programs:
            with contextlib.suppress(psutil.NoSuchProcess):
                program.kill()

    def _programs(self) -> list[psutil.Process]:
        """The browser's processes, found by their unique profile: they outlive a driver that was killed."""
        mark = f"--user-data-dir={self._profile.name}"
        return [program for program in psutil.process_iter(["cmdline"]) if mark in (program.info["cmdline"] or ())]

    def _start(self) -> None:
        self._chrome = self.browser.start(self._profile.name, self.web.contact)
        self._is_running = True
        self._tabs = {"listing": self._chrome.current_window_handle}
        self._chrome.switch_to.new_window("tab")
        self._tabs["book"] = self._chrome.current_window_handle

    def counters(self) -> Counters:
        """Pages that the browser opened; `bytes` are those of the rendered HTML."""
        return self._counters.copy()

    def fetch(self, url: str, kind: Kind, validators: Validators | None = None) -> Page:
        """The rendered page; `validators` are ignored.

        Raises:
            ShopUnavailable: the shop does not respond, or refuses visits, or the browser can open none of its pages.
            TransientSourceError, PermanentSourceError: this page cannot be fetched.
        """
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError  # selenium raises it when the driver is gone

        for retry in range(min(_ATTEMPTS, self.web.patience.attempts)):
            if retry:
                self._counters.retries += 1
                time.sleep(self.web.patience.backoff_s(retry - 1))
            self._http.admit(url)
            try:
                if not self._is_running:
                    self._start()
                page = self._shown(url, kind)
            except TransientSourceError as error:
                reason = error.reason
            except (WebDriverException, HTTPError) as error:
                reason = (str(error) or type(error).__name__).removeprefix("Message: ").splitlines()[0]
                self._revive()
            else:
                self._failures = 0
                return page
        self._failures += 1
        if self._failures >= _DEAD_AFTER:
            raise ShopUnavailable(url, f"{self._failures} pages in a row could not be opened, the last: {reason}")
        raise TransientSourceError(url, reason)

    def fetch_many(
        self, urls: Iterable[str], kind: Kind, validators: Callable[[str], Validators | None] | None = None
    ) -> Iterator[Page | FailedPage]:
        """Sequentially: a browser in a hurry burdens a shop more than a crawler does."""
        for url in urls:
            try:
                yield self.fetch(url, kind)
            except ShopUnavailable:
                raise
            except SourceError as error:
                yield FailedPage(url, kind, error.reason)

    def _shown(self, url: str, kind: Kind) -> Page:
        self._chrome.switch_to.window(self._tabs["listing" if kind == "listing" else "book"])
        status = self._visited(url, kind)
        reason = f"the shop answers {status}"
        if status >= 400:
            raise TransientSourceError(url, reason) if is_retryable(status) else PermanentSourceError(url, reason)
        found, html = self._chrome.current_url, self._chrome.page_source
        if not has_same_host(found, url):
            raise PermanentSourceError(url, f"leads to another host ({found}), where we do not go")
        body = html.encode("utf-8", "replace")
        if len(body) > self.web.patience.max_bytes:
            raise PermanentSourceError(url, f"is larger than {self.web.patience.max_bytes} bytes")
        self._counters.bytes += len(body)
        headers = (("Content-Type", "text/html; charset=utf-8"),)
        return Page(found, 200, headers, body, kind, datetime.now(UTC))

    def _visited(self, url: str, kind: Kind) -> int:
        """Open `url` -> HTTP status of the displayed page."""
        self._counters.requests += 1
        started, status = time.monotonic(), None
        try:
            status = self._click(url) if kind == "listing" else None
            if status is None:
                self._chrome.get(url)
                status = self._wait(None, "")
        finally:
            self._counters.time(started, status or 0)
        self._counters.statuses[status] += 1
        return status

    def _click(self, url: str) -> int | None:
        """Click the link to `url` on the page -> HTTP status; None if there is no such link, or it leads elsewhere."""
        from selenium.common.exceptions import WebDriverException

        if not has_same_host(self._chrome.current_url, url) or self._chrome.current_url == url:
            return None
        try:
            before = self._chrome.execute_script(_SHOWN, self.browser.shown)[3]
            link = self._chrome.execute_script(_LINK, url)
            if link is None:
                return None
            link.click()
        except WebDriverException:
            return None  # the link is covered by something, or gone: the address can still be opened directly
        status = self._wait(url, before)
        return status if self._chrome.current_url == url else None

    def _wait(self, url: str | None, before: str) -> int:
        """Wait until the page is at its address, loaded, different from `before`, and stable over two polls -> HTTP
        status."""
        deadline, last, status = time.monotonic() + self.browser.timeout_s, None, 200
        while time.monotonic() < deadline:
            found, state, status, shown = self._chrome.execute_script(_SHOWN, self.browser.shown)
            if status >= 400:
                break
            if shown and shown == last and shown != before and state == "complete" and url in {None, found}:
                break
            last = shown
            time.sleep(_POLL_S)
        return status or 200

    def _revive(self) -> None:
        """Stop a crashed browser, so that it is started again."""
        from selenium.common.exceptions import WebDriverException
        from urllib3.exceptions import HTTPError

        try:
            if self._is_running:
                self._chrome.switch_to.window(self._tabs["listing"])
        except (WebDriverException, HTTPError):
            self._quit()
