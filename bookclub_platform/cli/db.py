"""`bookclub db upgrade|current`."""

from __future__ import annotations

import sys

import click

from bookclub_platform.cli._main import main
from bookclub_platform.core.settings import load_settings


@main.group()
def db() -> None:
    """The schema of the database."""


@db.command()
def upgrade() -> None:
    """Create missing databases and migrate the tables to the newest revision. Safe to run twice."""
    from bookclub_platform.core.database import current_revision
    from bookclub_platform.local.database import open_databases

    click.echo(f"The tables are of revision {current_revision(open_databases(load_settings()).books)}.")


@db.command()
def current() -> None:
    """Show the revision of the tables. Exit status 1 if they need `bookclub db upgrade`."""
    from bookclub_platform.core.database import current_revision, head_revision
    from bookclub_platform.local.database import books_address

    present, newest = current_revision(books_address(load_settings())), head_revision()
    click.echo(f"The tables are of revision {present}, this version needs {newest}.")
    if present != newest:
        click.echo("Run `bookclub db upgrade`.", err=True)
        sys.exit(1)
