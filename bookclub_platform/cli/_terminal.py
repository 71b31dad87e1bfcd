"""What commands share: how they show progress, keep Dagster and MLflow quiet, and reach the books."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import Connection


def quieten() -> None:
    """Leave the terminal to the progress; Dagster keeps every event in its storage."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # MLflow sets its own level when it is imported
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")


@contextmanager
def books_connection() -> Iterator[Connection]:
    """A connection to the books, in a transaction that commits at the end of the block."""
    from sqlalchemy import create_engine

    from bookclub_platform.local.database import open_databases

    logging.getLogger("alembic").setLevel(logging.WARNING)
    with create_engine(open_databases(load_settings()).books).begin() as connection:
        yield connection


@contextmanager
def progress_over(steps: int) -> Iterator[Progress]:
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
