"""What an operator does at a terminal -> the log `bookclub.audit`: told on stderr, and kept in HOME/logs/audit.jsonl.

    keep_audit()                                        at the beginning of a command that changes something
    note_act("retire-category", source="shop", category="mystery")

A server's log is kept by who runs it; that of a terminal is gone with its window.
"""

from __future__ import annotations

import logging
from functools import partial
from getpass import getuser

import click

from bookclub_platform.core import audit
from bookclub_platform.core.settings import load_settings


def keep_audit() -> None:
    """Until the command ends; into a home that is there already, for an empty one must stay so for `restore`."""
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger(audit.LOGGER).setLevel(logging.INFO)
    home = load_settings().home
    if home.is_dir():
        kept = audit.keep(home / "logs")
        click.get_current_context().call_on_close(partial(audit.forget, kept))


def note_act(act: str, **facts: str | int | None) -> None:
    """The act is done; by whom is the user of the machine."""
    audit.note(act, "done", by=getuser(), **facts)
