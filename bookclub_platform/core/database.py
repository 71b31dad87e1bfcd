"""One Postgres address -> the three databases on it (books, Dagster's, MLflow's), created and migrated.

    urls = database_urls("postgresql://user:password@host/bookclub")
    ensure_databases(urls); migrate(urls.books)

Dagster and MLflow both create tables called `alembic_version` and `runs`, so each of the three has its own database.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from bookclub_platform.core.errors import ConfigurationError, DatabaseUnavailable
from bookclub_platform.core.tables import SCHEMA

# Alembic is imported where it is used: the API only gets an address from here, and does not need it.
if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).with_name("migrations")
_MIGRATION_LOCK = 0x626F6F6B  # "book": any number that no other program on the server uses


@dataclass(frozen=True, slots=True)
class DatabaseUrls:
    """Addresses with their driver: psycopg 3 for ours; Dagster's and MLflow's storage need psycopg2
    (SQLAlchemy 2.1 would use psycopg 3 for a bare `postgresql://`, which breaks dagster-postgres)."""

    books: str
    dagster: str
    mlflow: str


def database_urls(url: str) -> DatabaseUrls:
    """`url` with a driver, and the addresses of `<database>_dagster` and `<database>_mlflow` on the same server."""
    base = sa.make_url(url.replace("postgres://", "postgresql://", 1))

    def named(driver: str, suffix: str) -> str:
        return base.set(
            drivername=f"postgresql+{driver}", database=f"{base.database or 'bookclub'}{suffix}"
        ).render_as_string(hide_password=False)

    return DatabaseUrls(named("psycopg", ""), named("psycopg2", "_dagster"), named("psycopg2", "_mlflow"))


def ensure_databases(urls: DatabaseUrls) -> None:
    """Create those of the three databases that are missing.

    Raises:
        DatabaseUnavailable: the server does not respond, or this role may not create a database.
    """
    wanted = [sa.make_url(url).database for url in (urls.books, urls.dagster, urls.mlflow)]
    server = sa.make_url(urls.books)
    engine = sa.create_engine(server.set(database="postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            # If two processes start at once, one could find a name taken between its check and its CREATE.
            connection.execute(sa.select(sa.func.pg_advisory_lock(_MIGRATION_LOCK)))
            present = set(connection.scalars(sa.text("SELECT datname FROM pg_database")))
            for name in wanted:
                if name not in present:
                    quoted = connection.dialect.identifier_preparer.quote(str(name))
                    connection.execute(sa.text(f"CREATE DATABASE {quoted}"))
    except sa.exc.DBAPIError as error:
        raise DatabaseUnavailable(
            f"Postgres at {server.host}:{server.port or 5432} cannot give the databases {', '.join(map(str, wanted))}: "
            f"{str(error.orig).strip()}. Start the server, or create them by hand and grant them to {server.username}."
        ) from error


def migrate(url: str, revision: str = "head") -> None:
    """Upgrade the schema `bookclub` to `revision`; concurrent callers queue up. There are no downgrades, which would
    have to discard what the upgrade began to store: restore an earlier backup instead.

    Raises:
        ConfigurationError: the database was upgraded by a newer version than this one.
    """
    from alembic import command
    from alembic.script import ScriptDirectory

    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as lock, lock.begin():
        lock.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            connection.commit()
            config = _config()
            known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
            present = _revision(connection)
            if present not in {None, *known}:
                raise ConfigurationError(
                    f"The tables in database {sa.make_url(url).database} are of revision {present}, which this version "
                    f"of the platform does not know (its newest is {head_revision()}). Install the newer version again."
                )
            config.attributes["connection"] = connection
            command.upgrade(config, revision)


def current_revision(url: str) -> str | None:
    """The revision of the tables in the database at `url`; None if it has none yet.

    Raises:
        DatabaseUnavailable: the server does not respond, or has no such database.
    """
    try:
        with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
            return _revision(connection)
    except sa.exc.OperationalError as error:
        place = sa.make_url(url).render_as_string(hide_password=True)
        raise DatabaseUnavailable(f"{place} does not answer: {str(error.orig).strip()}. Start the server.") from error


def head_revision() -> str | None:
    """The revision that this version of the platform needs."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _revision(connection: sa.Connection) -> str | None:
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
    return context.get_current_revision()


def wait_until_up(url: str, timeout_s: float = 30.0) -> None:
    """Return once the server at `url` accepts connections, whether or not the database exists yet.

    Raises:
        DatabaseUnavailable: the server did not respond within `timeout_s`.
    """
    engine = sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg", database="postgres"), poolclass=sa.NullPool
    )
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with engine.connect():
                return
        except sa.exc.OperationalError as error:
            if time.monotonic() > deadline:
                place = sa.make_url(url).render_as_string(hide_password=True)
                raise DatabaseUnavailable(
                    f"Postgres at {place} did not answer for {timeout_s:.0f} s: {error.orig}"
                ) from error
            time.sleep(0.05)
