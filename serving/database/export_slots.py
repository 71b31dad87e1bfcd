"""Running exports of one worker -> which account may start another, and which export gives way to one that waits.

    slots = ExportSlots(3); slot = slots.take(account, held)         None: there is none for this account now
    slot.took(65536); slot.is_to_leave; slots.make_room()       asks the slowest to leave

While nobody waits, an export keeps its slot until it ends. The last free slot is not given to accounts that had one
lately: however many of them return at once, another account gets in.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

LATELY_S = 900.0
# Every export may run for UNDISTURBED_S; to stay longer, its client must read this fast, at which a million books take
# a quarter of an hour. Bytes before compression.
UNDISTURBED_S, FAIR_BYTES_PER_S = 60.0, 2 * 2**20


@dataclass(eq=False)
class ExportSlot:
    """The slot of one export.

    Attributes:
        on_leave: called when the export has to give way; its response is then cut short.
        is_to_leave: whether it was asked to.
    """

    account: int
    began_at: float
    taken: int = 0
    is_to_leave: bool = False
    on_leave: Callable[[], None] = field(default=lambda: None)

    def took(self, count: int) -> None:
        """Count the bytes that the client has taken."""
        self.taken += count

    @property
    def is_slow(self) -> bool:
        """Whether it has had its undisturbed time, and its client reads more slowly than is fair."""
        lasted_s = time.monotonic() - self.began_at
        return lasted_s > UNDISTURBED_S and self.taken < lasted_s * FAIR_BYTES_PER_S


class ExportSlots:
    """`count` slots. They are taken on the event loop, and returned from threads."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._lock = threading.Lock()
        self._taken: list[ExportSlot] = []
        self._had_until: dict[int, float] = {}

    def take(self, account: int, held: ExitStack) -> ExportSlot | None:
        """A slot until `held` is closed; None if there is none for this account."""
        now = time.monotonic()
        with self._lock:
            self._had_until = {who: until for who, until in self._had_until.items() if now - until < LATELY_S}
            free = self._count - len(self._taken) - (account in self._had_until)
            if free < 1:
                return None
            slot = ExportSlot(account, now)
            self._taken.append(slot)
        held.callback(self._give_back, slot)
        return slot

    def make_room(self) -> None:
        """Ask the slowest of the slow exports to leave, unless one has already been asked."""
        with self._lock:
            taken = [*self._taken]
        slow = [slot for slot in taken if slot.is_slow]
        if not slow or any(slot.is_to_leave for slot in taken):
            return
        slowest = min(slow, key=lambda slot: slot.taken / (time.monotonic() - slot.began_at))
        slowest.is_to_leave = True
        slowest.on_leave()

    def _give_back(self, slot: ExportSlot) -> None:
        with self._lock:
            self._taken.remove(slot)
            if slot.taken:  # else it was only a check whether anything had changed since the last export
                self._had_until[slot.account] = time.monotonic()
