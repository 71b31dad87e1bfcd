"""An address -> whether a new account may be created from it: created accounts count, refused ones do not.

    with registrations.one("192.0.2.7"): ...create it; raise if it cannot be created

An account is counted before it is created, so that concurrent requests cannot exceed the quota, and uncounted if it was
not created. Refused attempts count in gate.py, against TRIES times as many: that limits how fast somebody can find out
which names exist, and have passwords rated.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.access.callers import neighbourhood
from serving.access.policies import of_registrations
from serving.access.quotas import SharedQuotas
from serving.access.rate_limit import quota_exceeded


class Registrations:
    """At most `per_hour` new accounts from one address; 0 means no limit."""

    def __init__(self, quotas: SharedQuotas, per_hour: int) -> None:
        self._quotas, self._quota = quotas, of_registrations(per_hour)

    @contextmanager
    def one(self, address: str) -> Iterator[None]:
        """Wrap the creation of one account. It stays counted only if it ends without an error.

        Raises:
            Problem: 429, too many were created.
        """
        if not self._quota.amount:
            yield
            return
        who = neighbourhood(address)
        standing = self._quotas.take(self._quota, who)
        if standing.is_over:
            raise quota_exceeded(standing)
        try:
            yield
        except BaseException:
            self._quotas.give_back(self._quota, who)
            raise
