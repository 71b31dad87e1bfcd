"""`bookclub up|build|clean|serve|sandbox`: what runs the platform, or a part of it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

import click

from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import progress_over, quieten
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import Settings, load_settings


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
    """Materialise everything once, with a progress bar, then exit."""
    from bookclub_platform.build import build as materialise
    from bookclub_platform.local.home import check_disk, settle

    settings = load_settings()
    check_disk(settings.home)
    if settings.database_url is None:
        note = settle(settings.home, settings.shop_url)
        if note:
            click.echo(note)
    click.echo(f"Building from {settings.shop_url}")
    quieten()
    for warning in materialise(settings, progress_over):
        click.echo(warning, err=True)
    click.echo("Built: the table is loaded and a champion is published.")


@main.command()
@click.argument("categories", nargs=-1)
def clean(categories: tuple[str, ...]) -> None:
    """Clean and load the stored pages again, without any request to a shop. CATEGORIES are slugs; none means all."""
    from bookclub_platform.build import clean as clean_again

    settings = load_settings()
    quieten()
    for warning in clean_again(settings, categories, progress_over):
        click.echo(warning, err=True)
    click.echo("Cleaned and loaded from the kept pages.")


@main.command()
def serve() -> None:
    """Run only the API."""
    from serving.run import run

    settings = load_settings()
    run(settings, *_addresses(settings))


@main.command()
@click.option("--books", default=1000, show_default=True, type=click.IntRange(1), help="Number of books in the shop.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same shop.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
def sandbox(books: int, seed: int, port: int) -> None:
    """Run only the sandbox shop."""
    from bookclub_platform.sandbox import serve as run

    run(books=books, seed=seed, host="127.0.0.1", port=port)


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
