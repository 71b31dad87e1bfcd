"""Who did what -> a line of JSON in the log `bookclub.audit`: logins, actions on accounts, changes of the model.

    note("login", "refused", address="192.0.2.7", user_id=7)
    keep(home / "logs")             # also in audit.jsonl there, for setups where nobody collects the server's log

Never log a password or token, nor a name without an account: people type their password there by mistake.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

LOGGER = "bookclub.audit"
FILE = "audit.jsonl"

_log = logging.getLogger(LOGGER)


def note(act: str, outcome: Literal["done", "refused"], **facts: str | int | list[str] | None) -> None:
    """Write one line, as ASCII JSON, so that no fact can start a second line."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {name: value for name, value in facts.items() if value is not None}
    _log.info("%s", json.dumps({"at": at, "act": act, "outcome": outcome} | known))


def keep(folder: Path) -> logging.Handler:
    """From now on, write this process's audit lines to FILE in `folder`, and in no other folder, until `forget`. Also
    enables INFO, which Dagster's processes, whose logging starts at WARNING, would drop.

    Raises:
        OSError: the file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = logging.FileHandler(folder / FILE, encoding="utf-8")
    for handler in [one for one in _log.handlers if isinstance(one, logging.FileHandler)]:
        forget(handler)
    _log.setLevel(logging.INFO)
    _log.addHandler(fresh)
    return fresh


def forget(kept: logging.Handler) -> None:
    """Undo `keep`."""
    _log.removeHandler(kept)
    kept.close()
