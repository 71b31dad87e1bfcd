"""`bookclub sources retire`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from bookclub_platform.cli._audit import keep_audit, note_act
from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import books_connection
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import load_settings


@main.group("sources")
def sources_group() -> None:
    """The sources of sources.yaml."""
    keep_audit()


@sources_group.command()
@click.argument("source")
def retire(source: str) -> None:
    """Delist the books of SOURCE, which was removed from sources.yaml."""
    from bookclub_platform.core.categories import retire_source
    from bookclub_platform.sources import sources, sources_file

    settings = load_settings()
    if source in [one.name for one in sources(settings)]:
        raise ConfigurationError(
            f"{source} is in {sources_file(settings)}, and its next crawl would list its books again. Remove it there "
            "first."
        )
    with books_connection() as connection:
        books = retire_source(connection, source, datetime.now(UTC))
    note_act("retire-source", source=source)
    click.echo(f"{source} is retired; {books} books were delisted.")
