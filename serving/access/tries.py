"""A try at a password -> whether it may be made. Wrong ones are counted, right ones cost nothing.

    with tries.one("ada", "192.0.2.7"): ...prove; raise WrongPassword(...) if it is not the one

Counted by all workers together, before the password is looked at, so that many at once are no more than as many one
after the other; and taken back if it was right. The numbers, for BOOKCLUB_LOGINS_PER_MINUTE=10:

    login-name      10 in 15 minutes at one name from one address
    login-address   100 an hour from one address, whatever the names
    login-anywhere  100 an hour at one name, wherever from; beyond that each address has login-strained: 2 an hour

So nobody keeps the owner of a name out by guessing at it from elsewhere: a first try from another address is always
looked at. docs/decisions/0015 tells what that leaves to whoever has a great many addresses. What a name has no account
for counts the same, so that nobody learns which there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.access.callers import neighbourhood
from serving.access.policies import of_wrong_passwords
from serving.access.quotas import Quota, SharedQuotas
from serving.access.rate_limit import beyond
from serving.http.problems import Problem


class WrongPassword(Problem):
    """A password that is not that of the name: in a login, or where somebody who is logged in confirms with it."""

    def __init__(self, is_login: bool) -> None:
        # Not 401 to who is logged in: apps take that for a token to refresh, and ask again with the same password.
        if is_login:
            super().__init__("wrong-credentials", headers={"WWW-Authenticate": "Bearer"})
        else:
            super().__init__("wrong-password")


class Tries:
    """The tries at all passwords; `amount` is for one name from one address, 0 is without limits."""

    def __init__(self, quotas: SharedQuotas, amount: int) -> None:
        self._quotas, self._is_limited = quotas, amount > 0
        self._name, self._address, self._anywhere, self._strained = of_wrong_passwords(amount).values()

    @contextmanager
    def one(self, username: str, address: str) -> Iterator[None]:
        """Around one try. Only one that ends with WrongPassword stays counted.

        Raises:
            Problem: 429, too many were wrong.
        """
        taken = self._take(username, neighbourhood(address)) if self._is_limited else []
        try:
            yield
        except WrongPassword:
            raise
        except BaseException:
            self._give_back(taken)
            raise
        self._give_back(taken)

    def _take(self, username: str, address: str) -> list[tuple[Quota, str]]:
        pair = f"{address} {username}"
        taken: list[tuple[Quota, str]] = []
        for quota, who in ((self._address, address), (self._name, pair), (self._anywhere, username)):
            standing = self._quotas.take(quota, who)
            if standing.is_over and quota is self._anywhere:
                quota, who = self._strained, pair
                standing = self._quotas.take(quota, who)
            if standing.is_over:
                self._give_back(taken)
                raise beyond(standing)
            taken.append((quota, who))
        return taken

    def _give_back(self, taken: list[tuple[Quota, str]]) -> None:
        for quota, who in taken:
            self._quotas.give_back(quota, who)
