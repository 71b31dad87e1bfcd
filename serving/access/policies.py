"""Settings -> all quotas: access/ and feedback.py count with them, and /docs lists them.

    every(settings)["login-name"]       Quota("login-name", 10, 900, "wrong passwords")

An amount of 0 means no limit.
"""

from __future__ import annotations

from bookclub_platform.core.settings import Settings
from serving.access.quotas import Quota

TRIES = 10  # attempts to register, for each account that may be created

Quotas = dict[str, Quota]


def of_requests(settings: Settings) -> Quotas:
    """The quotas of requests: each request counts against one of them, with a token against two."""
    return _by_name(
        Quota("anonymous", settings.anonymous_per_minute, 60),
        Quota("account", settings.account_per_minute, 60),
        Quota("address", settings.address_per_minute, 60),
        Quota("login", settings.logins_per_minute, 60),
        Quota("register-tries", TRIES * settings.registrations_per_hour, 3600),
    )


def of_registrations(per_hour: int) -> Quota:
    """Counts created accounts, not attempts: many people who mistype may share an address of a mobile network."""
    return Quota("register", per_hour, 3600, "new accounts")


def of_wrong_passwords(amount: int) -> Quotas:
    """`amount` is for one name from one address; 0 means that none of them limits."""
    words = "wrong passwords"
    return _by_name(
        Quota("login-name", amount, 900, words),
        Quota("login-address", 10 * amount, 3600, words),
        Quota("login-anywhere", 10 * amount, 3600, words),
        Quota("login-strained", 2 if amount else 0, 3600, words),
    )


def of_refreshes() -> Quota:
    """For one session. Tokens are valid for ten minutes; each used one is stored until the session is over."""
    return Quota("refresh", 60, 3600, "refreshes")


def of_feedback(per_day: int) -> Quota:
    return Quota("feedback", per_day, 24 * 3600, "events")


def every(settings: Settings) -> Quotas:
    """All quotas by name, in the order of /docs."""
    more = _by_name(
        of_registrations(settings.registrations_per_hour), of_refreshes(), of_feedback(settings.feedback_per_day)
    )
    return of_requests(settings) | of_wrong_passwords(settings.logins_per_minute) | more


def _by_name(*quotas: Quota) -> Quotas:
    return {quota.name: quota for quota in quotas}
