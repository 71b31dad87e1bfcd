"""A new account -> whether it may be made from that address: those that were made count, refusals do not.

    with registrations.one("192.0.2.7"): ...make it; raise if it cannot be

Counted before it is made, so that many at once are no more than as many one after the other, and taken back if it was
not. Refusals count in gate.py, against TRIES times as many: names are listed, and passwords judged, no faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.access.callers import neighbourhood
from serving.access.policies import of_registrations
from serving.access.quotas import SharedQuotas
from serving.access.rate_limit import beyond


class Registrations:
    """At most `per_hour` new accounts from one address; 0 is without a limit."""

    def __init__(self, quotas: SharedQuotas, per_hour: int) -> None:
        self._quotas, self._quota = quotas, of_registrations(per_hour)

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Around the making of one. Only one that ends without an error stays counted.

        Raises:
            Problem: 429, too many were made.
        """
        if not self._quota.amount:
            yield
            return
        who = neighbourhood(address)
        standing = self._quotas.take(self._quota, who)
        if standing.is_over:
            raise beyond(standing)
        try:
            yield
        except BaseException:
            self._quotas.give_back(self._quota, who)
            raise
