"""Settings -> findings: is each part of the platform as it must be, and if not, what mends it?

    for finding in examine(settings): ...               bookclub doctor [--json]

Nothing is started or changed; what is not up is a finding. All parts are asked at the same time, and one that does not
answer holds no other back.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from bookclub_platform.core.settings import Settings
from bookclub_platform.local.doctor._data import crawl, database, migrations
from bookclub_platform.local.doctor._finding import Finding
from bookclub_platform.local.doctor._machine import disk, ports, sources, versions
from bookclub_platform.local.doctor._services import api, dagster, mlflow, model, shop

__all__ = ["Finding", "examine"]

Part = Callable[[Settings], Sequence[Finding]]
# In the order in which they depend on each other.
_PARTS: dict[str, Part] = {
    "versions": versions,
    "disk": disk,
    "ports": ports,
    "sources": sources,
    "database": database,
    "migrations": migrations,
    "shop": shop,
    "crawl": crawl,
    "mlflow": mlflow,
    "model": model,
    "dagster": dagster,
    "api": api,
}
PATIENCE_S = 8.0


def examine(settings: Settings, patience_s: float = PATIENCE_S) -> Iterator[Finding]:
    """The findings of each part, all within about `patience_s`."""
    deadline = time.monotonic() + patience_s
    answers = {name: _asked(part, settings) for name, part in _PARTS.items()}
    for name, answer in answers.items():
        try:
            found = answer.get(timeout=max(0.05, deadline - time.monotonic()))
        except queue.Empty:
            mend = "See whether the machine or the network is overloaded, then ask again."
            found = [Finding(name, False, f"no answer within {patience_s:.0f} s", mend)]
        if isinstance(found, Exception):
            raise found
        yield from found


def _asked(part: Part, settings: Settings) -> queue.SimpleQueue[Sequence[Finding] | Exception]:
    """Where the findings will come. The thread is a daemon: an address that hangs must not keep us from ending."""
    answer: queue.SimpleQueue[Sequence[Finding] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answer.put(part(settings))
        except Exception as error:  # noqa: BLE001 - handed over, and raised where it is asked for
            answer.put(error)

    threading.Thread(target=ask, daemon=True).start()
    return answer
