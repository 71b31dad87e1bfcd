"""Settings -> what assets are given: the table, the folders, the model registry.

Each is a thin handle that opens what it stands for at first use, in the process of the run.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import quote

import dagster as dg
import psycopg
import sqlalchemy as sa

from bookclub_platform.core import audit
from bookclub_platform.core import cleaned as files
from bookclub_platform.core.cleaned import CleanedCategory
from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.files import replaced
from bookclub_platform.core.settings import load_settings
from bookclub_platform.local.database import open_databases
from bookclub_platform.local.home import artifact_root
from bookclub_platform.models import Registry

RETRIES, RETRY_AFTER_S = 5, 3


class DataFolder(dg.ConfigurableResource):
    """The files between the steps: `raw/` (WARC, sources/_archive.py), `cleaned/` (core/cleaned.py), `covers/`."""

    home: str

    @property
    def raw(self) -> Path:
        return Path(self.home, "raw")

    def covers(self, source: str) -> Path:
        return Path(self.home, "covers", source)

    def write_report(self, page: str) -> Path:
        """Put the catalogue report where the API looks for it."""
        path = load_settings(home=self.home).report
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced(path) as file:
            file.write(page.encode())
        return path

    def write_cleaned(self, source: str, category: str, cleaned: CleanedCategory) -> Path:
        return files.write_cleaned(self._path(source, category), cleaned)

    def read_cleaned(self, source: str, category: str) -> CleanedCategory | None:
        """What was last cleaned, None if nothing was."""
        return files.read_cleaned(self._path(source, category))

    def _path(self, source: str, category: str) -> Path:
        return Path(self.home, "cleaned", source, f"{category}.jsonl")


class BooksDatabase(dg.ConfigurableResource):
    """The schema `bookclub`, through core/tables.py."""

    @contextmanager
    def begin(self) -> Iterator[sa.Connection]:
        """A connection inside a transaction that commits at the end of the block.

        Raises:
            dg.RetryRequested: the connection is lost or cannot be had. The step starts anew, for what it did is whole
                or undone, and a load that came through changes nothing the second time.
        """
        try:
            with self.engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, psycopg.OperationalError, DatabaseUnavailable) as error:
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=RETRY_AFTER_S) from error

    @property
    def engine(self) -> sa.Engine:
        """The connections of this process, opened at first use."""
        return _engine(open_databases(load_settings()).books)


@cache
def _engine(url: str) -> sa.Engine:
    return sa.create_engine(url, pool_pre_ping=True)


class Api(dg.ConfigurableResource):
    """Where people find what the API shows; for links alone."""

    url: str

    @property
    def report(self) -> str:
        return f"{self.url}/report"

    @property
    def model(self) -> str:
        return f"{self.url}/model"

    @property
    def books(self) -> str:
        return f"{self.url}/books"

    def category(self, key: str) -> str:
        return f"{self.books}?category={quote(key)}"


class MlflowRegistry(dg.ConfigurableResource):
    """The model registry: MLFLOW_TRACKING_URI's, else the embedded database's.

    Attributes:
        ui_url, dagster_url: where people look at MLflow and Dagster; for links alone.
    """

    ui_url: str
    dagster_url: str

    def open(self) -> Registry:
        """The registry; what is done to its models by this process is kept in the audit log of the home."""
        settings = load_settings()
        audit.keep(settings.home / "logs")
        return Registry(settings.mlflow_tracking_uri or open_databases(settings).mlflow)

    @property
    def artifact_root(self) -> str | None:
        """Where the files of a model go; None: an MLflow server decides."""
        settings = load_settings()
        return None if settings.mlflow_tracking_uri else artifact_root(settings.home)

    def run_page(self, run_id: str) -> str:
        return f"{self.dagster_url}/runs/{run_id}"
