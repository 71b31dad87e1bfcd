"""The group `main`, which every command of this folder joins.

from bookclub_platform.cli._main import main

@main.command()
def example() -> None: ...
"""

from __future__ import annotations

import errno
import os
import signal

import click

from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.settings import LOOPBACK


class _Group(click.Group):
    """Tells a failure in a sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BookclubError as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            raise click.ClickException(f"{error}. Install it: `make install`.") from error
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise click.ClickException(f"The disk is full: {error}. Make room, then start again.") from error
            if error.filename is None:  # no file's fault; click ends quietly where a pipe is closed
                raise
            home = "If that is in the home, set BOOKCLUB_HOME to a folder in which this user may write."
            raise click.ClickException(f"{error.filename}: {error.strerror}. {home}") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookclub-platform")
def main() -> None:
    """Book Club: collects a shop's books, learns which are alike, and recommends."""
    # Else what we start takes any file of the folder that we are in for a package: gql.py there for Dagster's `gql`.
    os.environ["PYTHONSAFEPATH"] = "1"
    _ask_this_machine_directly()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a script's `command &` starts us, and Dagster lets SIGTERM do what SIGINT does: we would obey neither.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _ask_this_machine_directly() -> None:
    """Keep requests to our own services from a proxy, for this process and all that it starts."""
    told = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if told != "*":
        hosts = dict.fromkeys([*filter(None, told.split(",")), *sorted(LOOPBACK)])
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)
