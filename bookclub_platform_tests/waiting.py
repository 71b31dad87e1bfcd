"""What will be so soon -> a pause until it is, or a failure that says what was waited for.

wait_for(lambda: model_version(client) == "2")
wait_for(lambda: is_up(f"{address}/health"), 90, log=folder / "mlflow.log")
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx


def wait_for(
    is_so: Callable[[], object],
    timeout_s: float = 30,  # a busy machine takes long; what must be fast says its own time
    message: str = "not so",
    *,
    log: Path | None = None,
    pause_s: float = 0.02,
) -> None:
    """Return once `is_so()`; AssertionError, with the message and the end of the log, if it is not within `timeout_s`:
    an answer that comes later counts as none."""
    started = time.monotonic()
    while True:
        is_done = is_so()
        took_s = time.monotonic() - started
        if took_s > timeout_s:
            told = log.read_text(errors="replace")[-5000:] if log else ""
            raise AssertionError(f"{message} within {timeout_s} s, but {took_s:.2f} s\n{told}")
        if is_done:
            return
        time.sleep(pause_s)


def is_up(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False
