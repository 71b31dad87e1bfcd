"""(quota, who) -> how much is left, counted by all workers together in one mapped file; about 10 us a request.

    shared = SharedQuotas(home / "serving" / "quotas"); shared.take(Quota("anonymous", 120, 60), "192.0.2.7").is_over

GCRA: of each (quota, who) one number is kept, the moment at which all of the quota is free again. Postgres would cost
a round trip and a write for each request, Redis another server; `limits` has no storage that workers share without
either. A machine that starts anew may forget the file: it only ever forgives. Where there is no room for the file, each
worker counts for itself, which lets more through than one, and looks for room again and again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import mmap
import secrets
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

_AGAIN_AFTER_S = 30.0
_WAYS = 8  # places that one key may have
_SETS = 8192
_SALT_BYTES = 16
_SLOT = struct.Struct("<Qd")  # hash of the key, moment at which its quota is whole again
_SIZE = _SALT_BYTES + _SETS * _WAYS * _SLOT.size  # 1 MB: 65,536 callers at a time, however many ever come


@dataclass(frozen=True, slots=True)
class Quota:
    """`amount` requests, or what else `of` names, in `window_s` seconds; 0 means without a limit."""

    name: str
    amount: int
    window_s: int
    of: str = "requests"


@dataclass(frozen=True, slots=True)
class Standing:
    """How somebody stands with a quota after a request; `retry_s` is None if that one was within it."""

    quota: Quota
    remaining: int
    whole_in_s: float
    retry_s: float | None

    @property
    def is_over(self) -> bool:
        return self.retry_s is not None


class SharedQuotas:
    """The counters in `path`, which every process that opens it shares. The file is made when first needed.

    Attributes:
        fault: why this process counts for itself; None while all count together.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._file: IO[bytes] | None = None
        self._again_at = 0.0
        self.fault: str | None = None

    def take(self, quota: Quota, who: str, units: int = 1) -> Standing:
        """Count a request of `who` that is worth so many, the whole quota at most, unless it goes beyond the quota:
        those that are refused are not counted."""
        step = quota.window_s / quota.amount
        cost_s = min(units, quota.amount) * step
        counters = self._counters()
        key = _key(counters, quota, who)
        self._lock(fcntl.LOCK_EX)
        try:
            now = time.time()
            place, whole_at = _find(counters, key, now)
            if whole_at > now + quota.window_s:
                # A clock that was set back must not shut anybody out for longer than the window.
                whole_at = now + quota.window_s
                _SLOT.pack_into(counters, place, key, whole_at)
            following = max(whole_at, now) + cost_s
            over_s = following - now - quota.window_s
            if over_s > 1e-6:
                return Standing(quota, _left(quota, whole_at - now), max(whole_at - now, 0.0), over_s)
            _SLOT.pack_into(counters, place, key, following)
        finally:
            self._lock(fcntl.LOCK_UN)
        return Standing(quota, _left(quota, following - now), following - now, None)

    def give_back(self, quota: Quota, who: str) -> None:
        """Take one request of `who`, which was within the quota, as not made."""
        counters = self._counters()
        key = _key(counters, quota, who)
        self._lock(fcntl.LOCK_EX)
        try:
            place, whole_at = _find(counters, key, 0.0)
            if whole_at:  # else pushed out by others meanwhile
                _SLOT.pack_into(counters, place, key, whole_at - quota.window_s / quota.amount)
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
        """Without a limit, or without an answer, for want of a file would be worse than limits that are not shared."""
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
    """The file, all of it there: a hole in it would kill whoever writes there once the disk is full.

    Raises:
        OSError: there is no room, or no right to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b", buffering=0)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if path.stat().st_size != _SIZE:
            file.truncate(0)
            # The salt keeps people from choosing names that share a place with somebody else's.
            left = secrets.token_bytes(_SALT_BYTES) + bytes(_SIZE - _SALT_BYTES)
            while left:
                left = left[file.write(left) :]
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        file.truncate(0)  # what room there is is for others
        file.close()
        raise
    return file


def _left(quota: Quota, whole_in_s: float) -> int:
    return int((quota.window_s - max(whole_in_s, 0.0)) * quota.amount / quota.window_s + 1e-6)


def _key(counters: mmap.mmap, quota: Quota, who: str) -> int:
    digest = hashlib.blake2b(f"{quota.name} {who}".encode("utf-8", "replace"), key=counters[:_SALT_BYTES])
    return int.from_bytes(digest.digest()[:8], "little")


def _find(counters: mmap.mmap, key: int, now: float) -> tuple[int, float]:
    """Where `key` is kept and its moment; if it is nowhere, the place that is whole again soonest, as a new one."""
    first = _SALT_BYTES + (key % _SETS) * _WAYS * _SLOT.size
    soonest, place = float("inf"), first
    for offset in range(first, first + _WAYS * _SLOT.size, _SLOT.size):
        held, whole_at = _SLOT.unpack_from(counters, offset)
        if held == key:
            return offset, whole_at
        if whole_at < soonest:
            soonest, place = whole_at, offset
    return place, now
