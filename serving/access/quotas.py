"""Quota and caller -> how much is left, counted by all workers together in one mapped file; about 10 us per request.

    shared = SharedQuotas(home / "serving" / "windows"); shared.take(Quota("anonymous", 120, 60), "192.0.2.7").is_over

A sliding window: in any period of `window_s` seconds, at most `amount` requests pass. That is what `RateLimit-Policy`
says. A token bucket (GCRA), with one number for each caller, does not guarantee it: it allows the whole quota at once,
and as much again little by little. Requests are counted in groups of an eighth of the window, and leave the window with
the last of their group: a caller with a steady rate gets eight ninths of the quota. Postgres would cost a round trip
and a write for each request, Redis another server; `limits` has no storage that workers can share without one of them.
A restarted machine may lose the file: callers only gain by that. If there is no space for the file, each worker counts
alone, which lets more requests through, and tries again from time to time.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import mmap
import secrets
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_AGAIN_AFTER_S = 30.0
_WAYS = 8  # slots that one key may use
_SETS = 8192
_SALT_BYTES = 16
_PARTS = 8
_GROUPS = _PARTS + 1  # parts of the clock that a window can overlap
# Hash of the key; then for each group, newest first, the second at which it leaves the window, and its requests.
_SLOT = struct.Struct(f"<Q{2 * _GROUPS}I")
_START = struct.Struct("<QI")
_SIZE = _SALT_BYTES + _SETS * _WAYS * _SLOT.size  # 5 MB: 65,536 callers at a time, however many there are in all

_Groups = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Quota:
    """`amount` requests, or whatever `of` names, in `window_s` seconds; 0 means no limit."""

    name: str
    amount: int
    window_s: int
    of: str = "requests"


@dataclass(frozen=True, slots=True)
class Standing:
    """The state of a caller's quota after a request: at most `remaining` more pass within `window_s` seconds, then some
    are available again. `retry_s` is None if that request was within the quota."""

    quota: Quota
    remaining: int
    window_s: float
    retry_s: float | None

    @property
    def is_over(self) -> bool:
        return self.retry_s is not None


class SharedQuotas:
    """The counters in the file `path`, shared by every process that opens it. The file is created on first use.

    Attributes:
        fault: why this process counts alone; None while all processes count together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._file: IO[bytes] | None = None
        self._again_at = 0.0
        self.fault: str | None = None

    def take(self, quota: Quota, who: str, units: int = 1) -> Standing:
        """Count a request of `who` as `units`, but at most as the whole quota. A request that would exceed the quota is
        refused, and not counted."""
        return self.take_all([(quota, who)], units)[0]

    def take_all(self, asked: Sequence[tuple[Quota, str]], units: int = 1) -> list[Standing]:
        """Like `take`, for several quotas at once: a request that would exceed one of them is counted in none."""
        counters = self._counters()
        keys = [_key(counters, quota, who) for quota, who in asked]
        self._lock(fcntl.LOCK_EX)
        try:
            now = time.time()
            found = [_find(counters, key, now, quota) for key, (quota, _) in zip(keys, asked, strict=True)]
            standings = [
                _standing(quota, groups, units, now) for (_, groups), (quota, _) in zip(found, asked, strict=True)
            ]
            is_over = any(standing.is_over for standing in standings)
            for key, (place, groups), (quota, _) in zip(keys, found, asked, strict=True):
                if not is_over:
                    _add(groups, quota, min(units, quota.amount), now)
                if groups:  # after a refusal, too: _find may have changed them because the clock was set back
                    _write(counters, place, key, groups)
        finally:
            self._lock(fcntl.LOCK_UN)
        if is_over:
            return standings
        return [_standing(quota, groups, 0, now) for (_, groups), (quota, _) in zip(found, asked, strict=True)]

    def give_back(self, quota: Quota, who: str, units: int = 1) -> None:
        """Uncount `units` of `who` that were within the quota."""
        counters = self._counters()
        key = _key(counters, quota, who)
        self._lock(fcntl.LOCK_EX)
        try:
            place, groups = _find(counters, key, time.time(), quota)
            if groups:  # otherwise other keys have evicted it meanwhile
                gone_at, counted = groups[0]
                groups[0] = (gone_at, max(counted - units, 0))
                _write(counters, place, key, groups)
        finally:
            self._lock(fcntl.LOCK_UN)

    def _lock(self, how: int) -> None:
        if self._file is not None:
            fcntl.flock(self._file, how)

    def _counters(self) -> mmap.mmap:
        if self._map is None or (self._file is None and time.monotonic() > self._again_at):
            self._open()
        assert self._map is not None
        return self._map

    def _open(self) -> None:
        """Map the file, or memory of this process if that fails: no limits at all, or no responses, would be worse than
        limits that are not shared."""
        try:
            file = _opened(self._path)
            self._map = mmap.mmap(file.fileno(), _SIZE)
            self._file, self.fault = file, None
        except OSError as error:
            self._again_at = time.monotonic() + _AGAIN_AFTER_S
            if self._map is None:
                self._map = mmap.mmap(-1, _SIZE)
                self._map[:_SALT_BYTES] = secrets.token_bytes(_SALT_BYTES)
                log.warning("Each worker counts its quotas for itself, and lets more through for that: %s", error)
            self.fault = f"each worker counts for itself: {error}"


def _opened(path: Path) -> IO[bytes]:
    """The file, with all its space allocated: on a full disk, a write into a hole would kill the process.

    Raises:
        OSError: there is no space, or no permission to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b", buffering=0)
    is_ours = False
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.stat().st_size != _SIZE:
            is_ours = True
            file.truncate(0)
            # The salt keeps people from choosing names that share a slot with somebody else's.
            left = secrets.token_bytes(_SALT_BYTES) + bytes(_SIZE - _SALT_BYTES)
            while left:
                left = left[file.write(left) :]
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        if is_ours:  # else others have it mapped, and would be killed
            file.truncate(0)  # leave the remaining space to others
        file.close()
        raise
    return file


def _standing(quota: Quota, groups: _Groups, units: int, now: float) -> Standing:
    """The standing of a caller with these requests who asks for `units` more, before those are counted."""
    left = quota.amount - sum(count for _, count in groups)
    lacking, retry_s = min(units, quota.amount) - left, None
    for gone_at, count in reversed(groups):
        if lacking <= 0:
            break
        lacking, retry_s = lacking - count, gone_at - now
    return Standing(quota, max(left, 0), _until_some_leave(groups, now), retry_s)


def _until_some_leave(groups: _Groups, now: float) -> float:
    return next((gone_at - now for gone_at, count in reversed(groups) if count), 0.0)


def _add(groups: _Groups, quota: Quota, units: int, now: float) -> None:
    """Put a request into the newest group if that belongs to the same part of the clock, otherwise into a new one. A
    group leaves one window after its last request, rounded up, so that no request is forgotten too early."""
    gone_at, part_s = math.ceil(now) + quota.window_s, math.ceil(quota.window_s / _PARTS)
    if groups and (groups[0][0] - quota.window_s) // part_s == (gone_at - quota.window_s) // part_s:
        groups[0] = (gone_at, groups[0][1] + units)
    else:
        groups.insert(0, (gone_at, units))


def _key(counters: mmap.mmap, quota: Quota, who: str) -> int:
    digest = hashlib.blake2b(f"{quota.name} {who}".encode("utf-8", "replace"), key=counters[:_SALT_BYTES])
    return int.from_bytes(digest.digest()[:8], "little")


def _find(counters: mmap.mmap, key: int, now: float, quota: Quota) -> tuple[int, _Groups]:
    """The slot of `key`, and its requests that are still in the window. If it has none: the slot whose requests expire
    first."""
    first = _SALT_BYTES + (key % _SETS) * _WAYS * _SLOT.size
    soonest, place = float("inf"), first
    for offset in range(first, first + _WAYS * _SLOT.size, _SLOT.size):
        held, gone_at = _START.unpack_from(counters, offset)
        if held == key:
            _, *pairs = _SLOT.unpack_from(counters, offset)
            # A clock that was set back must not lock anybody out for longer than the window.
            last = math.ceil(now) + quota.window_s
            pairs_of = zip(pairs[::2], pairs[1::2], strict=True)
            return offset, [(min(gone_at, last), count) for gone_at, count in pairs_of if gone_at > now]
        if gone_at < soonest:
            soonest, place = gone_at, offset
    return place, []


def _write(counters: mmap.mmap, place: int, key: int, groups: _Groups) -> None:
    flat = [number for group in groups[:_GROUPS] for number in group]
    _SLOT.pack_into(counters, place, key, *flat, *[0] * (2 * _GROUPS - len(flat)))
