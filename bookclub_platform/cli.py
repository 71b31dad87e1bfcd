"""The command `bookclub`. Exit status: 0, 1 for a failure that is told in a sentence, 2 for wrong usage.

Each command imports what it needs when it runs: `bookclub serve` works where Dagster is not installed.
"""

from __future__ import annotations

import errno
import importlib.metadata
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bookclub_platform.core.errors import BookclubError, ConfigurationError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import Settings, load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from bookclub_platform.export import Format, Name


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
            if error.errno != errno.ENOSPC:
                raise
            raise click.ClickException(f"The disk is full: {error}. Make room, then start again.") from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bookclub-platform")
def main() -> None:
    """Book Club: collects a shop's books, learns which are alike, and recommends."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a script's `command &` starts us, and Dagster lets SIGTERM do what SIGINT does: we would obey neither.
        signal.signal(signal.SIGINT, signal.default_int_handler)


@main.command()
def up() -> None:
    """Start everything on this machine, build it once, and stay until Ctrl-C."""
    from bookclub_platform.local.up import up as start

    missing = list(_missing_packages("platform"))
    if missing:
        raise ConfigurationError(f"Packages are missing: {', '.join(missing)}. Install them: `make install`.")
    settings = load_settings()
    start(settings, with_sandbox="shop_url" not in settings.model_fields_set, say=click.echo)


@main.command()
def build() -> None:
    """Materialise everything once, with a progress bar, then end."""
    from bookclub_platform.build import build as materialise
    from bookclub_platform.local.home import check_disk, settle

    settings = load_settings()
    check_disk(settings.home)
    if settings.database_url is None:
        note = settle(settings.home, settings.shop_url)
        if note:
            click.echo(note)
    click.echo(f"Building from {settings.shop_url}")
    _quieten()
    for warning in materialise(settings, _progress_over):
        click.echo(warning, err=True)
    click.echo("Built: the table is loaded and a champion is published.")


@main.command()
@click.argument("categories", nargs=-1)
def clean(categories: tuple[str, ...]) -> None:
    """Clean the kept pages again and load the rows, without asking any shop. CATEGORIES are slugs; none means all."""
    from bookclub_platform.build import clean as clean_again

    settings = load_settings()
    _quieten()
    for warning in clean_again(settings, categories, _progress_over):
        click.echo(warning, err=True)
    click.echo("Cleaned and loaded from the kept pages.")


@main.command()
def serve() -> None:
    """Run the API alone."""
    from serving.app import run

    settings = load_settings()
    run(settings, *_addresses(settings))


@main.command()
@click.option("--books", default=1000, show_default=True, type=click.IntRange(1), help="How many books the shop has.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same shop.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
def sandbox(books: int, seed: int, port: int) -> None:
    """Run the made-up shop alone."""
    from bookclub_platform.sandbox import serve as run

    run(books=books, seed=seed, host="127.0.0.1", port=port)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For machines: a list of part, is_well, text, mend.")
def doctor(as_json: bool) -> None:
    """Check every part, and name the mend for each fault."""
    from bookclub_platform.local.doctor import examine

    findings = list(examine(load_settings()))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    for finding in [] if as_json else findings:
        click.echo(f"{'ok   ' if finding.is_well else 'FAULT'} {finding.part}: {finding.text}")
        if not finding.is_well:
            click.echo(f"      Mend: {finding.mend}")
    if not all(finding.is_well for finding in findings):
        sys.exit(1)


@main.group()
def categories() -> None:
    """The categories of each source: those that live, and those that are gone."""


@categories.command("list")
def list_categories() -> None:
    """Every category with its source, listed books, last crawl and state."""
    from bookclub_platform.core.categories import select_states, state_of

    with _books_connection() as connection:
        rows = connection.execute(select_states()).all()
    click.echo(f"{'category':<24} {'source':<20} {'books':>7}  {'last crawl (UTC)':<16}  state")
    for row in rows:
        crawled = f"{row.last_crawl_at.astimezone(UTC):%Y-%m-%d %H:%M}" if row.last_crawl_at else "never"
        click.echo(f"{row.category:<24} {row.source:<20} {row.books:>7}  {crawled:<16}  {state_of(row)}")


@categories.command()
@click.argument("category")
@click.option("--source", help="Of this source alone; else of every source that has it.")
def retire(category: str, source: str | None) -> None:
    """Crawl CATEGORY no more, and delist its books. It stays so until `restore`."""
    from bookclub_platform.core.categories import retire as retire_one
    from bookclub_platform.core.categories import sources_of

    with _books_connection() as connection:
        for name in sources_of(connection, category, source):
            books = retire_one(connection, name, category, datetime.now(UTC), by="operator")
            click.echo(f"{name}/{category} is retired; {books} books were delisted.")


@categories.command("restore")
@click.argument("category")
@click.option("--source", help="Of this source alone; else of every source that has it.")
def restore_category(category: str, source: str | None) -> None:
    """Crawl CATEGORY again. What `retire` had delisted is listed again, until the next crawl tells more."""
    from bookclub_platform.core.categories import restore as restore_one
    from bookclub_platform.core.categories import sources_of

    with _books_connection() as connection:
        for name in sources_of(connection, category, source):
            books = restore_one(connection, name, category)
            click.echo(f"{name}/{category} is restored; {books} books are listed again; the next crawl may find more.")


@main.command()
def failures() -> None:
    """What is failed and not mended since, with the cause: assets, partitions, checks. Ends with 1 if there is any."""
    import dagster as dg

    from bookclub_platform.definitions import build_definitions
    from bookclub_platform.failures import report, standing_failures
    from bookclub_platform.local.home import dagster_home

    _quieten()
    settings = load_settings()
    graph = build_definitions(settings).resolve_asset_graph()
    with dg.DagsterInstance.from_config(str(dagster_home(settings.home))) as instance:
        failed = standing_failures(instance, graph)
    for line in report(failed, f"http://127.0.0.1:{settings.dagster_port}"):
        click.echo(line)
    if failed:
        sys.exit(1)
    click.echo("Nothing is failed.")


@contextmanager
def _books_connection() -> Iterator[Connection]:
    """A connection to the books, in a transaction that commits at the end of the block."""
    from sqlalchemy import create_engine

    from bookclub_platform.local.database import open_databases

    logging.getLogger("alembic").setLevel(logging.WARNING)
    with create_engine(open_databases(load_settings()).books).begin() as connection:
        yield connection


@main.command("export")
@click.argument("table", type=click.Choice(["books", "observations"]))
@click.option("--format", "kind", type=click.Choice(["csv", "ndjson", "parquet"]), default="csv", show_default=True)
@click.option("--output", default="-", show_default=True, type=click.Path(allow_dash=True, dir_okay=False))
@click.option("--all", "with_delisted", is_flag=True, help="Also the books that are gone, with their observations.")
@click.option("--spreadsheet-safe", is_flag=True, help="CSV in which no text is run as a formula.")
def export_table(table: Name, kind: Format, output: str, with_delisted: bool, spreadsheet_safe: bool) -> None:
    """Write a table as it is at one moment, to a file or the standard output."""
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
@click.option("--spreadsheet-safe", is_flag=True, help="The CSV was exported so.")
def import_table(file: Path, spreadsheet_safe: bool) -> None:
    """Take FILE, which `bookclub export` wrote, into the database: books first, then observations."""
    import sqlalchemy as sa

    from bookclub_platform.ingest import ingest
    from bookclub_platform.local.database import open_databases

    engine = sa.create_engine(open_databases(load_settings()).books, poolclass=sa.NullPool)
    with engine.begin() as connection:
        done = ingest(connection, file, is_spreadsheet_safe=spreadsheet_safe)
    click.echo(f"{done.table}: {done.inserted:,} rows imported, {done.unchanged:,} were there already.")


@main.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write everything that the platform keeps to FILE (.tar.gz); it may go on working meanwhile."""
    from bookclub_platform.local.backup import backup as write

    manifest = write(load_settings(), file.absolute())
    click.echo(f"{file}: {file.stat().st_size:,} bytes, {len(manifest.files):,} files, as of {manifest.made_at}")


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def restore(file: Path) -> None:
    """Fill an empty home from FILE, which `bookclub backup` wrote."""
    from bookclub_platform.local.backup import restore as read

    settings = load_settings()
    _quieten()
    manifest = read(settings, file)
    click.echo(f"{settings.home} is as it was at {manifest.made_at}. Start it: `bookclub up`.")


@main.group()
def db() -> None:
    """The schema of the database."""


@db.command()
def upgrade() -> None:
    """Make the databases that are missing, and bring the tables to the newest revision; safe to run twice."""
    from bookclub_platform.core.database import current_revision
    from bookclub_platform.local.database import open_databases

    click.echo(f"The tables are of revision {current_revision(open_databases(load_settings()).books)}.")


@db.command()
def current() -> None:
    """Tell the revision of the tables, and change nothing. Exit status 1 if they need `bookclub db upgrade`."""
    from bookclub_platform.core.database import current_revision, head_revision
    from bookclub_platform.local.database import books_address

    present, newest = current_revision(books_address(load_settings())), head_revision()
    click.echo(f"The tables are of revision {present}, this version needs {newest}.")
    if present != newest:
        click.echo("Run `bookclub db upgrade`.", err=True)
        sys.exit(1)


@main.group()
def users() -> None:
    """Accounts of the API."""
    _quieten()
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("bookclub.audit").setLevel(logging.INFO)


@users.command("add")
@click.argument("username")
@click.option("--admin", is_flag=True, help="May also start crawls.")
def add_user(username: str, admin: bool) -> None:
    """Make an account. The password is asked for, or is the first line of standard input."""
    from bookclub_platform.users import add

    add(load_settings(), username, _password(), admin)


@users.command("list")
def list_users() -> None:
    """Show every account."""
    from bookclub_platform.users import listed

    for user in listed(load_settings()):
        state = f"disabled {user.disabled_at:%Y-%m-%d}" if user.disabled_at else "active"
        click.echo(f"{user.username}\t{' '.join(user.scopes)}\t{state}")


@users.command("disable")
@click.argument("username")
def disable_user(username: str) -> None:
    """Shut an account out, at once."""
    from bookclub_platform.users import disable

    disable(load_settings(), username)


@users.command("password")
@click.argument("username")
def set_password(username: str) -> None:
    """Give an account another password, which is asked for or comes by standard input, and end its sessions."""
    from bookclub_platform.users import set_password as give

    give(load_settings(), username, _password())


@users.command("rotate-keys")
def rotate_keys() -> None:
    """Sign tokens with a new key; the old ones stay good until their time is over."""
    from bookclub_platform.users import rotate_keys as rotate

    click.echo(f"Tokens are signed with the key {rotate(load_settings())} from now on.")


def _password() -> str:
    """Never an option: everybody on the machine can read the command line of a process."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    return password


def _missing_packages(extra: str) -> Iterator[str]:
    """What setup.py asks for with `extra` and is not installed."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires("bookclub-platform") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            try:
                importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError:
                yield requirement.name


def _addresses(settings: Settings) -> tuple[str, str]:
    """(books database, tracking address); opens the embedded ones where none is set."""
    if settings.database_url is not None and settings.mlflow_tracking_uri is not None:
        return settings.database_url, settings.mlflow_tracking_uri
    from bookclub_platform.local.database import open_databases

    urls = open_databases(settings)
    return urls.books, settings.mlflow_tracking_uri or urls.mlflow


def _quieten() -> None:
    """Leave the terminal to the progress; Dagster keeps every event in its storage."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # MLflow sets its own level when it is imported
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")


@contextmanager
def _progress_over(steps: int) -> Iterator[Progress]:
    """A bar on a terminal, a line per stage elsewhere."""
    if sys.stdout.isatty():
        with click.progressbar(length=steps, show_pos=True, item_show_func=lambda item: item or "", width=30) as bar:
            yield _Bar(lambda text: bar.update(1, text))
    else:
        yield _Lines()


@dataclass
class _Bar:
    show: Callable[[str], None]

    def advance(self, stage: str, item: str) -> None:
        self.show(f"{stage} {item}")


@dataclass
class _Lines:
    stage: str = ""

    def advance(self, stage: str, item: str) -> None:
        if stage != self.stage:
            click.echo(f"{stage}: {item} ...")
            self.stage = stage


if __name__ == "__main__":
    main()
