"""The driver of the Spark job: books.parquet -> a folder for `read_counted`; what it did goes to Dagster by Pipes.

    python -m bookclub_platform.spark books.parquet FOLDER --master 'local[2]'

Settings of Spark itself (memory, a cluster's addresses) are read where Spark reads them: SPARK_CONF_DIR and the like.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, open_dagster_pipes

from bookclub_platform.models import Tfidf
from bookclub_platform.spark import FAULT, check_installed
from bookclub_platform.spark._count import count

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@click.command(help=__doc__)
@click.argument("books")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--master", default="local[*]", show_default=True, help="where Spark runs")
@click.option("--parameters", default="{}", help="of the model, as JSON")
@click.option("--partitions", type=click.IntRange(1), help="deal the books out among so many parts")
def main(books: str, folder: Path, master: str, parameters: str, partitions: int | None) -> None:
    folder = folder.absolute()
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ:
        click.echo(json.dumps(_counted(books, folder, master, json.loads(parameters), partitions)))
        return
    with open_dagster_pipes() as pipes:
        try:
            figures = _counted(books, folder, master, json.loads(parameters), partitions)
        except Exception as error:
            # Pipes tells the run's log of the exception; who has to report the failure in a sentence finds it here.
            folder.mkdir(parents=True, exist_ok=True)
            (folder / FAULT).write_text(sentence(error), encoding="utf-8")
            raise
        pipes.log.info(f"Spark counted: {figures}")
        pipes.report_custom_message(figures)


def sentence(error: Exception) -> str:
    """What went wrong, without the stacks of two languages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    told = causes[-1] if causes else " ".join(lines[:2])
    return f"{type(error).__name__}: {told}"[:500]


def _counted(
    books: str, folder: Path, master: str, parameters: dict[str, Any], partitions: int | None
) -> dict[str, Any]:
    check_installed()
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch, session(master, Path(scratch)) as spark:
        return count(spark, books, folder, Tfidf(**parameters), partitions) | {"master": master}


def session(master: str, scratch: Path) -> SparkSession:
    """A session of Spark at `master`; `scratch` is where it keeps what it puts aside, if it runs on this machine."""
    # Of what is handed to pandas, which is nothing: all that comes and goes is Arrow's.
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the first `python3` on the PATH
    builder = SparkSession.builder.appName("bookclub: tfidf_model").master(master)
    if master.startswith("local"):
        # Nobody else is to be heard: by itself Spark listens on the address of this machine's name, and serves a page.
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
        builder = builder.config("spark.ui.enabled", "false").config("spark.local.dir", str(scratch))
    return builder.config("spark.ui.showConsoleProgress", "false").getOrCreate()


if __name__ == "__main__":
    main()
