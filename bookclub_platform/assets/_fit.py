"""Table `books` -> a fitted model, and the rows that it was fitted on: counted in this process, or by Spark.

BOOKCLUB_SPARK_MASTER selects which. The model is the same: docs/decisions/0013-fitting-on-spark.md.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import sqlalchemy as sa
from dagster._core.errors import DagsterPipesExecutionError

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import load_settings
from bookclub_platform.core.tables import select_data_version, select_training_rows
from bookclub_platform.export import export_chunks, write_file
from bookclub_platform.models import BookText, Tfidf
from bookclub_platform.resources import BooksDatabase
from bookclub_platform.spark import FAULT, check_installed, read_counted


class Fitted(NamedTuple):
    """`facts` are what a Spark job reported about itself, for the asset's page; empty without Spark."""

    model: Tfidf
    rows: list[BookText]
    data_version: str
    facts: dict[str, Any]


def fitted(
    context: dg.AssetExecutionContext, model: Tfidf, database: BooksDatabase, pipes: dg.PipesSubprocessClient
) -> Fitted:
    """`model`, fitted on the listed books.

    Raises:
        dg.Failure: there is no book, something is not installed, or the Spark job failed.
    """
    settings = load_settings()
    try:
        if settings.spark_master is None:
            rows, version = _training_rows(database)
            return Fitted(model.fit(rows), rows, version, {})
        check_installed()
        return _by_spark(context, model, database, pipes, settings.spark_master, settings.home / "spark")
    except ConfigurationError as error:  # an extra or Java is not installed: a retry would not help
        raise dg.Failure(str(error), allow_retries=False) from error


def _by_spark(
    context: dg.AssetExecutionContext,
    model: Tfidf,
    database: BooksDatabase,
    pipes: dg.PipesSubprocessClient,
    master: str,
    home: Path,
) -> Fitted:
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        books, counted = Path(folder, "books.parquet"), Path(folder, "counted")
        rows, version = _training_rows(database, books)
        command = [sys.executable, "-m", "bookclub_platform.spark", books.as_uri(), str(counted)]
        options = ["--master", master, "--parameters", json.dumps(model.parameters)]
        try:
            job = pipes.run(context=context, command=[*command, *options])
        except DagsterPipesExecutionError as error:
            told = counted / FAULT
            why = told.read_text(encoding="utf-8") if told.is_file() else f"{error}, and what it wrote says why."
            raise dg.Failure(
                f"The Spark job at {master} failed. {why} Its output is in this run's log; mend BOOKCLUB_SPARK_MASTER "
                "or Spark's own settings, or unset it to fit without Spark."
            ) from error
        facts = _facts(*job.get_custom_messages())
        return Fitted(model.learn(read_counted(counted)), rows, version, facts)


def _facts(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"spark_{name}": figures[name] for name in ("master", "version", "partitions", "seconds")}


def _training_rows(database: BooksDatabase, parquet: Path | None = None) -> tuple[list[BookText], str]:
    """The rows and their data version; also writes the same snapshot to `parquet`, if given."""
    with database.begin() as connection:
        # One snapshot for all reads, or the version could include rows that the model never saw.
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        version = connection.execute(select_data_version()).scalar_one()
        rows = [BookText(*row) for row in connection.execute(select_training_rows())]
        if not rows:
            raise dg.Failure("Table books has no listed book: materialise books first.", allow_retries=False)
        if parquet is not None:
            write_file(parquet, export_chunks(connection, "books", "parquet"))
    return rows, str(version)
