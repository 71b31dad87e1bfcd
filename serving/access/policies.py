"""Settings -> every quota that there is: what gate.py, tries.py and feedback.py count with, and /docs lists.

    every(settings)["login-name"]       Quota("login-name", 10, 900, "wrong passwords")

An amount of 0 is no limit.
"""

from __future__ import annotations

from bookclub_platform.core.settings import Settings
from serving.access.quotas import Quota

TRIES = 10  # at a new account, for each that may be made

Quotas = dict[str, Quota]


def of_requests(settings: Settings) -> Quotas:
    """What each request counts against one of."""
    return _by_name(
        Quota("anonymous", settings.anonymous_per_minute, 60),
        Quota("account", settings.account_per_minute, 60),
        Quota("address", settings.address_per_minute, 60),
        Quota("login", settings.logins_per_minute, 60),
        Quota("register-tries", TRIES * settings.registrations_per_hour, 3600),
    )


def of_registrations(per_hour: int) -> Quota:
    """Accounts that are made: behind one address of a mobile network are many who mistype."""
    return Quota("register", per_hour, 3600, "new accounts")


def of_wrong_passwords(amount: int) -> Quotas:
    """`amount`: at one name from one address; 0: none of them limits."""
    words = "wrong passwords"
    return _by_name(
        Quota("login-name", amount, 900, words),
        Quota("login-address", 10 * amount, 3600, words),
        Quota("login-anywhere", 10 * amount, 3600, words),
        Quota("login-strained", 2 if amount else 0, 3600, words),
    )


def of_refreshes() -> Quota:
    """Of one session. Tokens are good for ten minutes; each that was used is kept until the session is over."""
    return Quota("refresh", 60, 3600, "refreshes")


def of_feedback(per_day: int) -> Quota:
    return Quota("feedback", per_day, 24 * 3600, "events")


def every(settings: Settings) -> Quotas:
    """All of them by name, in the order of /docs."""
    more = _by_name(
        of_registrations(settings.registrations_per_hour), of_refreshes(), of_feedback(settings.feedback_per_day)
    )
    return of_requests(settings) | of_wrong_passwords(settings.logins_per_minute) | more


def _by_name(*quotas: Quota) -> Quotas:
    return {quota.name: quota for quota in quotas}
