"""How a host is asked: delay, pace, Retry-After, backoff, budget of failures, robots.txt. No network: that is
_fetcher.py's."""

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
_FORGETFULNESS = 0.2  # weight of the newest answer: one slow answer among brisk ones slows nothing


@dataclass(frozen=True, slots=True)
class Patience:
    """How much of a host's trouble is borne.

    Attributes:
        attempts: how often one page is asked for at most: with 10, a shop that fails three requests in ten loses one
            page in 170,000. `robots_attempts` for robots.txt: it is the first contact, and a shop that is down is to
            be known in a second or two, so its pauses do not grow.
        backoff_base_s, backoff_cap_s: the longest pause before the first retry, and before any.
        longest_wait_s: a Retry-After or a Crawl-delay beyond it is not waited for.
        robots_age_s: robots.txt is read again after so long (RFC 9309, 2.4: a day).
        brisk_s: a shop that usually takes longer for an answer is asked more slowly.
        failures_ahead: the shop is given up when failures are that many ahead of answers.
        connect_timeout_s, read_timeout_s: to connect, and between two pieces of an answer.
        page_timeout_s: for a whole answer, headers and body, however steadily it trickles.
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
        """Seconds before the retry with that number (from 0): full jitter, so that clients do not come back in step."""
        return random.uniform(0, min(self.backoff_cap_s, self.backoff_base_s * 2**retry))


class Gate:
    """Lets one request start every `delay_s` seconds, whichever thread asks, and fewer while the shop is slow.

    A shop whose answers usually take longer than `brisk_s` is asked once in that time, so that about one request is
    under way: what Scrapy's AutoThrottle does. It never makes the delay shorter than `delay_s`.
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
        """Seconds between two starts, now."""
        return self.usual_s if self.is_slowed else self.delay_s

    def learn(self, took_s: float, is_page: bool) -> bool:
        """Take in how long an answer took; whether the host has just become slow by that.

        An error that comes quickly says nothing of a shop's strength, so only pages make it pass for faster.
        """
        with self._lock:
            was_slowed = self.is_slowed
            if is_page or took_s > self.usual_s:
                self.usual_s += _FORGETFULNESS * (took_s - self.usual_s)
            return self.is_slowed and not was_slowed

    def hold(self, seconds: float) -> None:
        """Nobody starts for that long: the host asked for a pause."""
        with self._lock:
            self._next_start = max(self._next_start, time.monotonic() + seconds)


class Budget:
    """How far failures may be ahead of answers. A shop that fails every third time never spends it, a dead one soon."""

    def __init__(self, failures: int) -> None:
        self._full = self._left = failures
        self._lock = threading.Lock()

    def earn(self) -> None:
        with self._lock:
            self._left = min(self._full, self._left + 1)

    def spend(self) -> bool:
        """Count a failure; False when nothing is left."""
        with self._lock:
            self._left -= 1
            return self._left > 0


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After field asks for, in either of its forms; None if it says nothing readable."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Robots:
    """What robots.txt says to one user agent (RFC 9309)."""

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
