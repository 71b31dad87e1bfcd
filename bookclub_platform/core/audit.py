"""What was done by whom -> a line of JSON in the log `bookclub.audit`: logins, acts on accounts, changes of the model.

    note("login", "refused", address="192.0.2.7", user_id=7)

Never a password or token; nor a name that has no account, for people type their password there by mistake.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

LOGGER = "bookclub.audit"

_log = logging.getLogger(LOGGER)


def note(act: str, outcome: Literal["done", "refused"], **facts: str | int | list[str] | None) -> None:
    """Write the line. JSON in ASCII: nothing in a fact can begin a second one."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    known = {name: value for name, value in facts.items() if value is not None}
    _log.info("%s", json.dumps({"at": at, "act": act, "outcome": outcome} | known))
