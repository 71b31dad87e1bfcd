"""Exports under way on one worker -> who may begin one, and who gives way to somebody who waits.

    places = Places(3); place = places.take(account, held)         None: there is none for this account now
    place.took(65536); place.is_to_leave; places.make_room()       the slowest is asked to leave

As long as nobody waits, a place is had for as long as the export lasts. The last one that is free is not for those who
had a place lately: however many of them come again at once, somebody else comes in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

LATELY_S = 900.0
# What everybody has, and what whoever is to stay longer takes: in that, a million books are done in a quarter of an
# hour. Bytes before they are packed.
UNDISTURBED_S, FAIR_BYTES_PER_S = 60.0, 2 * 2**20


@dataclass(eq=False)
class Place:
    """Of one export.

    Attributes:
        on_leave: called when it is to give way; whoever reads it is cut short then.
        is_to_leave: that was said.
    """

    account: int
    began_at: float
    taken: int = 0
    is_to_leave: bool = False
    on_leave: Callable[[], None] = field(default=lambda: None)

    def took(self, count: int) -> None:
        """So many bytes more were taken."""
        self.taken += count

    @property
    def is_slow(self) -> bool:
        """Whether it has had its time, and takes less than is fair."""
        lasted_s = time.monotonic() - self.began_at
        return lasted_s > UNDISTURBED_S and self.taken < lasted_s * FAIR_BYTES_PER_S


class Places:
    """`count` places. They are taken on the event loop, and given back from threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._taken: list[Place] = []
        self._had_until: dict[int, float] = {}

    def take(self, account: int, held: ExitStack) -> Place | None:
        """A place until `held` is closed; None where there is none for this account."""
        now = time.monotonic()
        with self._lock:
            self._had_until = {who: until for who, until in self._had_until.items() if now - until < LATELY_S}
            free = self._count - len(self._taken) - (account in self._had_until)
            if free < 1:
                return None
            place = Place(account, now)
            self._taken.append(place)
        held.callback(self._give_back, place)
        return place

    def make_room(self) -> None:
        """Ask the slowest of those who have had their time and take too little to leave, if one is not going yet."""
        with self._lock:
            taken = [*self._taken]
        slow = [place for place in taken if place.is_slow]
        if not slow or any(place.is_to_leave for place in taken):
            return
        slowest = min(slow, key=lambda place: place.taken / (time.monotonic() - place.began_at))
        slowest.is_to_leave = True
        slowest.on_leave()

    def _give_back(self, place: Place) -> None:
        with self._lock:
            self._taken.remove(place)
            if place.taken:  # else nothing had changed since the last time, and it was asked no more than that
                self._had_until[place.account] = time.monotonic()
