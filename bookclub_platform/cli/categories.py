"""`bookclub categories list|retire|restore`."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from bookclub_platform.cli._audit import keep_audit, note_act
from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import books_connection


@main.group()
def categories() -> None:
    """The categories of each source, active and retired."""
    keep_audit()


@categories.command("list")
def list_categories() -> None:
    """List every category with its source, listed books, last crawl and state."""
    from bookclub_platform.core.categories import select_states, state_of

    with books_connection() as connection:
        rows = connection.execute(select_states()).all()
    click.echo(f"{'category':<24} {'source':<20} {'books':>7}  {'last crawl (UTC)':<16}  state")
    for row in rows:
        crawled = f"{row.last_crawl_at.astimezone(UTC):%Y-%m-%d %H:%M}" if row.last_crawl_at else "never"
        click.echo(f"{row.category:<24} {row.source:<20} {row.books:>7}  {crawled:<16}  {state_of(row)}")


@categories.command()
@click.argument("category")
@click.option("--source", help="Only of this source. Default: all sources that have the category.")
def retire(category: str, source: str | None) -> None:
    """Stop crawling CATEGORY and delist its books, until `restore`."""
    from bookclub_platform.core.categories import retire as retire_one
    from bookclub_platform.core.categories import sources_of

    with books_connection() as connection:
        names = sources_of(connection, category, source)
        done = {name: retire_one(connection, name, category, datetime.now(UTC), by="operator") for name in names}
    for name, books in done.items():
        note_act("retire-category", source=name, category=category)
        click.echo(f"{name}/{category} is retired; {books} books were delisted.")


@categories.command("restore")
@click.argument("category")
@click.option("--source", help="Only of this source. Default: all sources that have the category.")
def restore_category(category: str, source: str | None) -> None:
    """Crawl CATEGORY again. The books that `retire` delisted are listed again until the next crawl."""
    from bookclub_platform.core.categories import restore as restore_one
    from bookclub_platform.core.categories import sources_of

    with books_connection() as connection:
        done = {name: restore_one(connection, name, category) for name in sources_of(connection, category, source)}
    for name, books in done.items():
        note_act("restore-category", source=name, category=category)
        click.echo(f"{name}/{category} is restored; {books} books are listed again; the next crawl may find more.")
