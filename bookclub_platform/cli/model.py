"""`bookclub model list|promote|rollback`."""

from __future__ import annotations

import click

from bookclub_platform.cli._audit import keep_audit
from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import quieten
from bookclub_platform.core.settings import load_settings

_WHY = click.option("--why", default="by hand", show_default=True, help="Reason, stored with the version.")


@main.group()
def model() -> None:
    """Model versions, and which one is the champion."""
    quieten()
    keep_audit()


@model.command("list")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Maximum number of versions.")
def list_versions(limit: int) -> None:
    """List the versions, newest first, with score, state and decision."""
    from bookclub_platform.model_versions import listed

    click.echo(f"{'version':>7}  {'trained (UTC)':<16}  {'score':>6}  {'state':<12}  decision")
    for version in listed(load_settings(), limit):
        score = "-" if version.score is None else f"{version.score:.4f}"
        when = f"{version.registered_at:%Y-%m-%d %H:%M}"
        click.echo(f"{version.number:>7}  {when}  {score:>6}  {version.state:<12}  {version.decision}")


@model.command("promote")
@click.argument("version")
@_WHY
def promote_version(version: str, why: str) -> None:
    """Make VERSION the champion, whatever the promotion gate decided. The API loads it within seconds."""
    from bookclub_platform.model_versions import promote

    click.echo(f"Version {promote(load_settings(), version, why).version} is the champion.")


@model.command()
@_WHY
def rollback(why: str) -> None:
    """Return to the previous champion. Run it again to go back one more."""
    from bookclub_platform.model_versions import rollback as roll_back

    now, before = roll_back(load_settings(), why)
    click.echo(f"Version {now.version} is the champion again; version {before.version} is rolled back.")
