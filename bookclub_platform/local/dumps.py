"""A database -> a .sql.gz written by pg_dump -> the three databases of a server, restored together or not at all.

The programs are Postgres' own, from the wheel or the system; a newer pg_dump reads an older server, but not vice versa.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from bookclub_platform.core.database import DatabaseUrls, migrate
from bookclub_platform.core.errors import ConfigurationError, DatabaseUnavailable
from bookclub_platform.local import postgres_binaries as binaries

# A row in one of these tables means that the database is already in use.
_USED_BY = {"books": "bookclub.books", "dagster": "public.runs", "mlflow": "public.runs"}
_PREAMBLE_LINES = 40
_UNKNOWN_BEFORE_17 = b"SET transaction_timeout = 0;\n"


def dump(url: str, target: Path) -> None:
    """Write a snapshot of one database to `target` (.sql.gz)."""
    words = ["--no-owner", "--no-privileges", "--compress=gzip:6", f"--file={target}", _address(url)]
    done = subprocess.run([_program("pg_dump"), *words], env=_environment(url), capture_output=True, text=True)
    if done.returncode:
        raise DatabaseUnavailable(f"pg_dump could not write {_name(url)}: {done.stderr.strip()}")


def restore_databases(urls: DatabaseUrls, dumps: Mapping[str, Path], id: str, moved: tuple[Path, Path]) -> None:
    """Fill the three databases from `dumps` (books, dagster, mlflow -> file). They may exist, and must not be in use.

    The work happens in temporary databases, which are renamed to the final names in one transaction that also records
    the backup's `id`. If the process is killed before it, nothing has changed; after it, a second call has nothing to
    do.

    Args:
        moved: the home that the backup came from, and the new one: MLflow stores the paths of a model's files.

    Raises:
        ConfigurationError: a database already has rows.
        DatabaseUnavailable: the server or psql failed.
    """
    named = {name: getattr(urls, name) for name in dumps}
    server = sa.make_url(urls.books).set(database="postgres")
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            if _note_of(connection, urls.books) == id:
                return
            for name, url in named.items():
                if _is_used(connection, url, _USED_BY[name]):
                    raise ConfigurationError(
                        f"The database {_name(url)} of {server.host} has rows already, and a restore overwrites "
                        "nothing. Set BOOKCLUB_DATABASE_URL to a new database."
                    )
            for name, url in named.items():
                for left in ("restoring", "before"):
                    _drop(connection, _beside(url, left))
                connection.execute(sa.text(f"CREATE DATABASE {_quoted(_beside(url, 'restoring'))}"))
                _run_script(_beside(url, "restoring"), dumps[name])
            migrate(_beside(urls.books, "restoring"))
            _tell_new_place(_beside(urls.mlflow, "restoring"), *(f"{path.as_uri()}/" for path in moved))
            _swap(sa.create_engine(server, poolclass=sa.NullPool), named, id)
            for url in named.values():
                _drop(connection, _beside(url, "before"))
    except sa.exc.DBAPIError as error:
        raise DatabaseUnavailable(f"Postgres at {server.host}: {str(error.orig).strip()}") from error


def forget(urls: DatabaseUrls) -> None:
    """Remove the backup's id again: the restore is complete."""
    with sa.create_engine(urls.books, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text(f"COMMENT ON DATABASE {_quoted(urls.books)} IS NULL"))


def _swap(engine: sa.Engine, named: Mapping[str, str], id: str) -> None:
    with engine.begin() as connection:
        for url in named.values():
            if _exists(connection, url):
                connection.execute(
                    sa.text(f"ALTER DATABASE {_quoted(url)} RENAME TO {_quoted(_beside(url, 'before'))}")
                )
            connection.execute(sa.text(f"ALTER DATABASE {_quoted(_beside(url, 'restoring'))} RENAME TO {_quoted(url)}"))
        # COMMENT takes no bound parameter; the id is checked to be a UUID when the manifest is read.
        connection.execute(sa.text(f"COMMENT ON DATABASE {_quoted(named['books'])} IS '{id}'"))


def _run_script(url: str, script: Path) -> None:
    words = [
        "--no-psqlrc",
        "--quiet",
        "--single-transaction",
        "--set=ON_ERROR_STOP=1",
        "--output",
        os.devnull,
        _address(url),
    ]
    with (
        gzip.open(script) as lines,
        subprocess.Popen(
            [_program("psql"), *words], env=_environment(url), stdin=subprocess.PIPE, stderr=subprocess.PIPE
        ) as psql,
    ):
        assert psql.stdin is not None and psql.stderr is not None
        try:
            for _ in range(_PREAMBLE_LINES):
                line = lines.readline()
                psql.stdin.write(line if line != _UNKNOWN_BEFORE_17 else b"\n")
            shutil.copyfileobj(lines, psql.stdin)
            psql.stdin.close()
        except BrokenPipeError:
            pass  # psql has ended; its stderr says why
        told = psql.stderr.read().decode(errors="replace").strip()
    if psql.returncode:
        raise DatabaseUnavailable(f"psql could not restore {script.name}: {told}")


def _tell_new_place(url: str, old: str, new: str) -> None:
    """Replace `old` with `new` in every text column of the database."""
    if old == new:
        return
    found = sa.MetaData()
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        found.reflect(connection)
        for table in found.tables.values():
            for column in table.columns:
                if isinstance(column.type, sa.String):
                    is_old = sa.func.strpos(column, old) > 0
                    connection.execute(
                        sa.update(table).where(is_old).values({column: sa.func.replace(column, old, new)})
                    )


def _is_used(connection: sa.Connection, url: str, table: str) -> bool:
    if not _exists(connection, url):
        return False
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as inside:
        if inside.scalar(sa.select(sa.func.to_regclass(table))) is None:
            return False
        schema, name = table.split(".")
        rows = sa.select(sa.literal(1)).select_from(sa.table(name, schema=schema))
        return inside.scalar(rows.limit(1)) is not None


def _exists(connection: sa.Connection, url: str) -> bool:
    found = sa.text("SELECT count(*) FROM pg_database WHERE datname = :name")
    return bool(connection.scalar(found, {"name": _name(url)}))


def _note_of(connection: sa.Connection, url: str) -> str | None:
    note = sa.text("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = :name")
    found: str | None = connection.scalar(note, {"name": _name(url)})
    return found


def _drop(connection: sa.Connection, url: str) -> None:
    connection.execute(sa.text(f"DROP DATABASE IF EXISTS {_quoted(url)} WITH (FORCE)"))


def _beside(url: str, suffix: str) -> str:
    return sa.make_url(url).set(database=f"{_name(url)}_{suffix}").render_as_string(hide_password=False)


def _name(url: str) -> str:
    return str(sa.make_url(url).database)


def _quoted(url: str) -> str:
    return '"{}"'.format(_name(url).replace('"', '""'))


def _program(name: str) -> str:
    path = binaries.folder() / name
    found = str(path) if path.exists() else shutil.which(name)
    if found is None:
        raise ConfigurationError(f"{name} is not here. Install the client programs of Postgres.")
    return found


def _address(url: str) -> str:
    """The address for libpq, without the password: every user of the machine can read a command's arguments."""
    parts = sa.make_url(url)
    return sa.URL.create(
        "postgresql", parts.username, None, parts.host, parts.port, parts.database, parts.query
    ).render_as_string(hide_password=False)


def _environment(url: str) -> dict[str, str]:
    password = sa.make_url(url).password
    return os.environ | ({"PGPASSWORD": str(password)} if password is not None else {})
