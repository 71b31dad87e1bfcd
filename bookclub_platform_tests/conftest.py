"""The real parts that tests share: a Postgres server for the session, a fresh migrated database for each module."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core.database import database_urls, migrate
from bookclub_platform.local.postgres import leased

# A test run that a script started with & ignores SIGINT, and Dagster, in this process, would let it ignore SIGTERM too:
# the processes that tests start would inherit that, and never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"
_numbers = itertools.count()


@pytest.fixture(scope="session", autouse=True)
def _own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No setting of the developer's own reaches a test, by environment or by `.env`."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("BOOKCLUB_", "MLFLOW_", "DAGSTER_"))]:
            patch.delenv(name)
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.chdir(tmp_path_factory.mktemp("cwd"))
        yield


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory, _own_environment: None) -> Iterator[str]:
    """The address of a real server, with the databases bookclub, bookclub_dagster and bookclub_mlflow."""
    with leased(tmp_path_factory.mktemp("home")) as url:
        yield url


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> Iterator[str]:
    """The address (with driver) of a fresh, migrated books database."""
    name = f"books_{next(_numbers)}"
    server = sa.create_engine(database_urls(postgres_url).books, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = sa.make_url(database_urls(postgres_url).books).set(database=name).render_as_string(hide_password=False)
    migrate(url)
    yield url
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
