"""An attempt at a password -> whether it may be made. Wrong passwords are counted, right ones are not.

    with tries.one("ada", "192.0.2.7"): ...check it; raise WrongPassword(...) if it is wrong

All workers count together. An attempt is counted before the password is checked, so that concurrent attempts cannot
exceed a quota, and uncounted if the password was right. The quotas, for BOOKCLUB_LOGINS_PER_MINUTE=10:

    login-name      10 in 15 minutes for one name from one address
    login-address   100 an hour from one address, for all names
    login-anywhere  100 an hour for one name from all addresses; then each address has login-strained: 2 an hour

So nobody can lock out the owner of a name by guessing from elsewhere: a first attempt from another address is always
checked. docs/decisions/0015 says what that allows an attacker with very many addresses. Attempts at names without an
account count the same, so that nobody learns which names exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.access.callers import neighbourhood
from serving.access.policies import of_wrong_passwords
from serving.access.quotas import Quota, SharedQuotas
from serving.access.rate_limit import quota_exceeded
from serving.http.problems import Problem


class WrongPassword(Problem):
    """The wrong password for the name: in a login, or when somebody who is logged in confirms an action with it."""

    def __init__(self, is_login: bool) -> None:
        # No 401 for somebody who is logged in: apps would refresh the token, and retry with the same password.
        if is_login:
            super().__init__("wrong-credentials", headers={"WWW-Authenticate": "Bearer"})
        else:
            super().__init__("wrong-password")


class Tries:
    """The attempts at all passwords; `amount` is for one name from one address, 0 means no limits."""

    def __init__(self, quotas: SharedQuotas, amount: int) -> None:
        self._quotas, self._is_limited = quotas, amount > 0
        self._name, self._address, self._anywhere, self._strained = of_wrong_passwords(amount).values()

    @contextmanager
    def one(self, username: str, address: str) -> Iterator[None]:
        """Wrap one attempt. It stays counted only if it ends with WrongPassword.

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
                raise quota_exceeded(standing)
            taken.append((quota, who))
        return taken

    def _give_back(self, taken: list[tuple[Quota, str]]) -> None:
        for quota, who in taken:
            self._quotas.give_back(quota, who)
