"""A connection to Postgres that is lost in the middle of a run: the run heals, or fails and says why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa

from bookclub_platform import resources
from bookclub_platform.build import Outcome, _run
from bookclub_platform.core import tables
from bookclub_platform.local.home import dagster_home
from bookclub_platform.resources import BooksDatabase
from bookclub_platform_tests.test_tables import BOOK, NOON, load_category


@pytest.fixture
def url(database_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The books database, which the platform finds in its settings."""
    own = sa.make_url(database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", own)
    monkeypatch.setattr(resources, "RETRY_AFTER_S", 0)
    return own


def end(url: str, pid: int) -> None:
    with psycopg.connect(url, autocommit=True) as other:
        assert other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)


def by_sqlalchemy(connection: sa.Connection) -> None:
    connection.execute(tables.select_data_version())


def by_driver(connection: sa.Connection) -> None:
    driver: Any = connection.connection.driver_connection
    driver.execute("SELECT 1")


@pytest.mark.parametrize("ask", [by_sqlalchemy, by_driver])
def test_a_load_whose_connection_is_lost_starts_anew_and_is_there_once(
    url: str, ask: Callable[[sa.Connection], None]
) -> None:
    attempts = []

    @dg.asset
    def books(context: dg.AssetExecutionContext, database: BooksDatabase) -> dg.MaterializeResult:
        with database.begin() as connection:
            load_category(connection, "shop", "travel", "crawl-1", [BOOK], [], NOON)
            attempts.append(context.retry_number)
            if len(attempts) <= 2:
                end(url, connection.execute(sa.select(sa.func.pg_backend_pid())).scalar_one())
                ask(connection)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        assert dg.materialize([books], resources={"database": BooksDatabase()}, instance=instance).success
    assert attempts == [0, 1, 2]
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT title FROM bookclub.books").fetchall() == [(BOOK.title,)]
        assert connection.execute("SELECT count(*) FROM bookclub.book_observations").fetchone() == (1,)
        connection.execute("TRUNCATE bookclub.books, bookclub.loads CASCADE")


def test_a_server_that_stays_away_fails_the_run_with_its_address(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "RETRIES", 1)
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", "postgresql://me@127.0.0.1:9/shop")
    attempts = []

    @dg.asset
    def books(context: dg.AssetExecutionContext, database: BooksDatabase) -> dg.MaterializeResult:
        attempts.append(context.retry_number)
        with database.begin():
            raise AssertionError("there is no connection")

    job = dg.Definitions(
        assets=[books], jobs=[dg.define_asset_job("load", "*")], resources={"database": BooksDatabase()}
    ).resolve_job_def("load")
    outcome = Outcome()
    with dg.DagsterInstance.ephemeral() as instance:
        assert not _run(outcome, job, instance, {})
    assert attempts == [0, 1]
    assert '"127.0.0.1", port 9' in outcome.faults[0]


def test_an_event_that_is_lost_on_its_way_is_told_again(url: str, tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path))) as instance:
        engine = instance.event_log_storage._engine  # type: ignore[attr-defined]
        lost = []

        @sa.event.listens_for(engine, "before_cursor_execute")
        def lose(connection: sa.Connection, cursor: Any, statement: str, *more: Any) -> None:
            if "INSERT INTO asset_event_tags" in statement and not lost:
                lost.append(statement)
                end(url, cursor.connection.get_backend_pid())

        @dg.asset(tags={"team": "books"})
        def raw_pages() -> dg.MaterializeResult:
            return dg.MaterializeResult(metadata={"rows": 7}, tags={"kept": "yes"})

        assert dg.materialize([raw_pages], instance=instance).success
        assert lost
        (record,) = instance.fetch_materializations(raw_pages.key, limit=1).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["rows"].value == 7


def test_the_webserver_s_connections_survive_a_restart_of_postgres(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    with dg.DagsterInstance.from_config(str(dagster_home(tmp_path))) as instance:
        instance.optimize_for_webserver(statement_timeout=15000, pool_recycle=3600, max_overflow=20)
        asked: list[Callable[[], Any]] = [
            instance.get_runs,
            instance.all_instigator_state,
            lambda: instance.get_dynamic_partitions("categories"),
        ]
        before = [list(ask()) for ask in asked]
        with psycopg.connect(url, autocommit=True) as other:
            every = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
            assert other.execute(every, [f"{other.info.dbname}_dagster"]).fetchall()
        assert [list(ask()) for ask in asked] == before
