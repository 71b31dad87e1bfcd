"""The command `bookclub`. Exit status: 0, 1 for a failure that is told in a sentence, 2 for wrong usage.

Each command imports what it needs when it runs: `bookclub serve` works where Dagster is not installed.
"""

from __future__ import annotations

import errno
import importlib.metadata
import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from bookclub_platform.core.errors import BookclubError, ConfigurationError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import Settings, load_settings


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
def doctor() -> None:
    """Check every part, and name the mend for each fault."""
    from bookclub_platform.local.doctor import examine

    findings = list(examine(load_settings()))
    for finding in findings:
        click.echo(f"{'ok  ' if finding.is_well else 'FAULT'} {finding.part}: {finding.text}")
    if not all(finding.is_well for finding in findings):
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
