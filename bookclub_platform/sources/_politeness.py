"""Politeness towards a host: delay, pace, Retry-After, backoff, failure budget, robots.txt. Without network access,
which is in _fetcher.py."""

from __future__ import annotations

import math
import random
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from protego import Protego

_ROBOTS_READ_BYTES = 512_000  # RFC 9309 asks for at least 500 KiB
_FORGETFULNESS = 0.2  # weight of the newest response: one slow response among fast ones does not slow down the crawl


@dataclass(frozen=True, slots=True)
class Patience:
    """The limits for a host in trouble.

    Attributes:
        attempts: maximum requests for one page: with 10, a shop that fails three requests in ten loses one page in
            170,000. `robots_attempts` for robots.txt: it is the first contact, and a shop that is down should be
            detected in a second or two, so its pauses do not grow.
        backoff_base_s, backoff_cap_s: the longest pause before the first retry, and before any.
        longest_wait_s: a longer Retry-After or Crawl-delay is not waited for.
        robots_age_s: robots.txt is read again after this time (RFC 9309, 2.4: a day).
        brisk_s: a shop whose responses usually take longer is sent requests less often.
        failures_ahead: the shop is given up when failures outnumber responses by this many.
        connect_timeout_s, read_timeout_s: to connect, and between two chunks of a response.
        page_timeout_s: for a whole response, headers and body, however steadily it trickles.
        max_bytes: of a body, as on the wire and decoded; `max_header_bytes` of all headers.
    """

    attempts: int = 10
    robots_attempts: int = 5
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 10.0
    longest_wait_s: float = 60.0
    robots_age_s: float = 24 * 3600.0
    brisk_s: float = 0.5
    failures_ahead: int = 50
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 10.0
    page_timeout_s: float = 30.0
    max_bytes: int = 16 * 1024 * 1024
    max_header_bytes: int = 64 * 1024

    def backoff_s(self, retry: int) -> float:
        """Seconds before the retry with that number (from 0), with full jitter, so that clients do not synchronise."""
        return random.uniform(0, min(self.backoff_cap_s, self.backoff_base_s * 2**retry))


class Gate:
    """Lets one request start every `delay_s` seconds, over all threads, and fewer while the shop is slow.

    If a shop's responses usually take longer than `brisk_s`, the gate lets one request start per usual response time,
    so that about one request is in progress, like Scrapy's AutoThrottle. The delay never gets shorter than `delay_s`.
    """

    def __init__(self, delay_s: float, brisk_s: float = math.inf) -> None:
        self.delay_s, self.brisk_s = delay_s, brisk_s
        self.usual_s = 0.0
        self._next_start = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: threading.Event) -> None:
        """Return when the caller may start, or as soon as `stopped` is set."""
        while not stopped.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= self._next_start:
                    self._next_start = now + self.pace_s
                    return
                pause_s = self._next_start - now
            stopped.wait(pause_s)

    @property
    def is_slowed(self) -> bool:
        return self.usual_s > max(self.brisk_s, self.delay_s)

    @property
    def pace_s(self) -> float:
        """The current number of seconds between two starts."""
        return self.usual_s if self.is_slowed else self.delay_s

    def learn(self, took_s: float, is_page: bool) -> bool:
        """Record how long a response took; return whether that has just made the host count as slow.

        A quick error says nothing about a shop's capacity, so only pages can lower the usual time.
        """
        with self._lock:
            was_slowed = self.is_slowed
            if is_page or took_s > self.usual_s:
                self.usual_s += _FORGETFULNESS * (took_s - self.usual_s)
            return self.is_slowed and not was_slowed

    def hold(self, seconds: float) -> None:
        """Let no request start for that long: the host asked for a pause."""
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + seconds)


class Budget:
    """How far failures may outnumber responses. A shop that fails every third time never exhausts it, a dead one soon
    does."""

    def __init__(self, failures: int) -> None:
        self._full = self._left = failures
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._left = min(self._full, self._left + 1)

    def spend(self) -> bool:
        """Count a failure; return False if nothing is left."""
        with self._lock:
            self._left -= 1
            return self._left > 0


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """The seconds in a Retry-After header, in either of its forms; None if it is unreadable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Robots:
    """The rules of a robots.txt for one user agent (RFC 9309)."""

    rules: Protego
    agent: str

    @classmethod
    def from_text(cls, body: bytes, agent: str) -> Robots:
        return cls(Protego.parse(body[:_ROBOTS_READ_BYTES].decode("utf-8-sig", "replace")), agent)

    def allows(self, url: str) -> bool:
        return self.rules.can_fetch(url, self.agent)

    @property
    def delay_s(self) -> float:
        return self.rules.crawl_delay(self.agent) or 0.0
