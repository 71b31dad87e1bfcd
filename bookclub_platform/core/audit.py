"""What was done by whom -> a line of JSON in the log `bookclub.audit`: logins, acts on accounts, changes of the model.

    note("login", "refused", address="192.0.2.7", user_id=7)
    keep(home / "logs")             # also in audit.jsonl there, where no server's log is kept by who runs it

Never a password or token; nor a name that has no account, for people type their password there by mistake.
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
    """Write the line. JSON in ASCII: nothing in a fact can begin a second one."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {name: value for name, value in facts.items() if value is not None}
    _log.info("%s", json.dumps({"at": at, "act": act, "outcome": outcome} | known))


def keep(folder: Path) -> logging.Handler:
    """Write what is noted by this process, from now on, to FILE in `folder` and in no other's, until
    `forget`. Dagster's processes, whose logging begins at WARNING, would pass it over.

    Raises:
        OSError: it cannot be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = logging.FileHandler(folder / FILE, encoding="utf-8")
    for handler in [one for one in _log.handlers if isinstance(one, logging.FileHandler)]:
        forget(handler)
    _log.setLevel(logging.INFO)
    _log.addHandler(fresh)
    return fresh


def forget(kept: logging.Handler) -> None:
    """End what `keep` began."""
    _log.removeHandler(kept)
    kept.close()
