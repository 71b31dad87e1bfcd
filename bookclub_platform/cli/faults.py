"""`bookclub doctor|failures`: what is wrong, and the mend."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from functools import partial

import click

from bookclub_platform.cli._main import main
from bookclub_platform.cli._terminal import books_connection, quieten
from bookclub_platform.core.settings import load_settings


@main.command()
@click.option("--json", "as_json", is_flag=True, help="JSON output: a list of part, is_well, text, mend.")
def doctor(as_json: bool) -> None:
    """Check every part and say how to fix each fault."""
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


@main.command()
def failures() -> None:
    """What has failed and is not fixed yet: assets, partitions, checks. Exit status 1 if there is anything."""
    import dagster as dg

    from bookclub_platform.core.categories import retired_slugs
    from bookclub_platform.definitions import build_definitions
    from bookclub_platform.failures import report, standing_failures
    from bookclub_platform.local.home import dagster_home

    quieten()
    settings = load_settings()
    graph = build_definitions(settings).resolve_asset_graph()
    home = str(dagster_home(settings.home))
    with dg.DagsterInstance.from_config(home) as instance, books_connection() as connection:
        failed = standing_failures(instance, graph, partial(retired_slugs, connection))
    for line in report(failed, f"http://127.0.0.1:{settings.dagster_port}"):
        click.echo(line)
    if failed:
        sys.exit(1)
    click.echo("Nothing is failed.")
