"""`bookclub export|import|backup|restore`: tables as files, and everything as one file."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bookclub_platform.cli._audit import keep_audit, note_act
from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import quieten
from bookclub_platform.core.settings import load_settings

if TYPE_CHECKING:
    from bookclub_platform.export import Format, Name


@main.command("export")
@click.argument("table", type=click.Choice(["books", "observations"]))
@click.option("--format", "kind", type=click.Choice(["csv", "ndjson", "parquet"]), default="csv", show_default=True)
@click.option("--output", default="-", show_default=True, type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--all", "with_delisted", is_flag=True, help="Include delisted books and their observations.")
@click.option("--spreadsheet-safe", is_flag=True, help="Escape CSV so that spreadsheets run no text as formula.")
def export_table(table: Name, kind: Format, output: str, with_delisted: bool, spreadsheet_safe: bool) -> None:
    """Write a consistent snapshot of a table to a file or to standard output."""
    from bookclub_platform.export import export_chunks, snapshot, write_file
    from bookclub_platform.local.database import open_databases

    if spreadsheet_safe and kind != "csv":
        raise click.UsageError("--spreadsheet-safe goes with --format csv alone.")
    if output == "-" and kind == "parquet" and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: name a file with --output.")
    options = {"with_delisted": with_delisted, "is_spreadsheet_safe": spreadsheet_safe}
    with (
        snapshot(open_databases(load_settings()).books) as connection,
        closing(export_chunks(connection, table, kind, **options)) as chunks,
    ):
        if output == "-":
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
        else:
            click.echo(f"{output}: {write_file(Path(output), chunks):,} bytes", err=True)


@main.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--spreadsheet-safe", is_flag=True, help="The CSV was exported with --spreadsheet-safe.")
def import_table(file: Path, spreadsheet_safe: bool) -> None:
    """Load FILE, written by `bookclub export`. Import books first, then observations."""
    import sqlalchemy as sa

    from bookclub_platform.ingest import ingest
    from bookclub_platform.local.database import open_databases

    keep_audit()
    engine = sa.create_engine(open_databases(load_settings()).books, poolclass=sa.NullPool)
    with engine.begin() as connection:
        done = ingest(connection, file, is_spreadsheet_safe=spreadsheet_safe)
    note_act("import", table=done.table, rows=done.inserted, file=file.name)
    click.echo(f"{done.table}: {done.inserted:,} rows imported, {done.unchanged:,} were there already.")


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write everything that the platform stores to FILE (.tar.gz). The platform may keep running."""
    from bookclub_platform.local.backup import backup as write

    keep_audit()
    manifest = write(load_settings(), file.absolute())
    note_act("backup", file=str(file.absolute()))
    click.echo(f"{file}: {file.stat().st_size:,} bytes, {len(manifest.files):,} files, as of {manifest.made_at}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Fill an empty home from FILE, written by `bookclub backup`."""
    from bookclub_platform.local.backup import restore as read

    settings = load_settings()
    quieten()
    manifest = read(settings, file)
    keep_audit()
    note_act("restore-backup", made_at=str(manifest.made_at), file=str(file.absolute()))
    click.echo(f"{settings.home} is as it was at {manifest.made_at}. Start it: `bookclub up`.")
