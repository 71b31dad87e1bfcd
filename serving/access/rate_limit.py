"""The quotas of a request -> header fields that say what is left of them, or the problem 429.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10, for each quota that the request counted against:

    RateLimit-Policy: "account";q=1200;w=60, "address";q=6000;w=60
    RateLimit: "account";r=1180;t=58, "address";r=5980;t=58
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request

from serving.access.quotas import Quota, SharedQuotas, Standing
from serving.http.problems import Problem


class Meter:
    """Counts a request as one, then as several if its route has expensive responses.

    Attributes:
        standings: the current state of these quotas.
    """

    def __init__(self, quotas: SharedQuotas, asked: Sequence[tuple[Quota, str]]) -> None:
        self._quotas, self._asked = quotas, asked
        self.standings = quotas.take_all(asked)

    @property
    def is_over(self) -> bool:
        return any(standing.is_over for standing in self.standings)

    def recount(self, units: int) -> None:
        """Count the request as `units`, but at most as the whole quota, instead of one. A refused request counts as
        none.

        Raises:
            Problem: 429, that would exceed the quota.
        """
        for quota, who in self._asked:
            self._quotas.give_back(quota, who)
        self.standings = self._quotas.take_all(self._asked, units)
        if self.is_over:
            raise quota_exceeded(*self.standings, units=units)


def charge(request: Request, units: int) -> None:
    """Count the request as `units` of the caller's quota; it was counted as one on arrival.

    Raises:
        Problem: 429, that would exceed the quota.
    """
    meter: Meter | None = request.state.meter
    if meter is not None and units > 1:
        meter.recount(units)


def tell(request: Request, standing: Standing) -> None:
    """Add the state of another quota, which does not count requests, to the headers of the response."""
    request.state.standings.append(standing)


def quota_exceeded(*standings: Standing, units: int = 1) -> Problem:
    """The problem for a caller whose request, which counts as `units`, exceeds one or several of these quotas."""
    over = [standing for standing in standings if standing.is_over]
    wait_s = math.ceil(max(standing.retry_s or 0 for standing in over))
    return Problem(
        "quota-exceeded",
        f"{_sentence(over[0], units)} Retry in {wait_s} s.",
        headers={"Retry-After": str(wait_s)} | _fields(standings),
        **{"violated-policies": [standing.quota.name for standing in over]},
    )


def _sentence(standing: Standing, units: int) -> str:
    """A sentence that says that the quota is exhausted, or that it has too little left for these units."""
    quota, left = standing.quota, standing.remaining
    most = f"{quota.amount} {quota.of} in {quota.window_s} s"
    if not left:
        return f"The quota {quota.name} is exhausted: {most}."
    return f"This counts as {min(units, quota.amount)}, and the quota {quota.name} has {left} left of {most}."


def add_fields(headers: MutableHeaders, standings: Sequence[Standing]) -> None:
    """Add the state of these quotas, before that of an exceeded quota that the response already has."""
    told = headers.get("RateLimit-Policy", "")
    lacking = [standing for standing in standings if f'"{standing.quota.name}";' not in told]
    for name, field in _fields(lacking).items() if lacking else ():
        headers[name] = f"{field}, {headers[name]}" if name in headers else field


def _fields(standings: Sequence[Standing]) -> dict[str, str]:
    policies = [f'"{one.quota.name}";q={one.quota.amount};w={one.quota.window_s}' for one in standings]
    limits = [f'"{one.quota.name}";r={one.remaining};t={math.ceil(one.window_s)}' for one in standings]
    return {"RateLimit-Policy": ", ".join(policies), "RateLimit": ", ".join(limits)}
