"""The way of a database with rows in it, from each revision to the newest; two starts at once; the commands."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core import database, tables
from bookclub_platform.core.database import current_revision, database_urls, head_revision, migrate
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.served_models import never_served
from bookclub_platform_tests.waiting import wait_for

_numbers = itertools.count()
REVISIONS = ["0001", "0002", "0003"]
BOOK = """
INSERT INTO bookclub.books (source, source_id, title, category, category_name, price, currency, rating, stock, in_stock,
    num_reviews, url, first_seen_at, last_seen_at, updated_at)
VALUES ('shop', :key, 'The Salt Road', 'travel', 'Travel', 12.5, 'GBP', 4, 3, true, 0, 'http://shop/1',
    now(), now(), now())
"""
ROWS = [
    BOOK,
    "INSERT INTO bookclub.book_observations SELECT id, :key, now(), price, rating, stock FROM bookclub.books "
    "WHERE source_id = :key",
    "INSERT INTO bookclub.rejected_books (source, crawl_id, url, category, reason, seen_at) "
    "VALUES ('shop', :key, 'http://shop/x', 'travel', 'price: none', now())",
    "INSERT INTO bookclub.loads (source, category, crawl_id, inserted, updated, delisted) "
    "VALUES ('shop', 'travel', :key, 1, 0, 0)",
]


@pytest.fixture
def empty_server(postgres_url: str) -> Iterator[str]:
    """An address whose three databases do not exist yet."""
    name = f"fresh_{next(_numbers)}"
    yield sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    server = sa.create_engine(database_urls(postgres_url).books, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        for suffix in ("", "_dagster", "_mlflow"):
            connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}{suffix} WITH (FORCE)"))


@pytest.fixture
def url(empty_server: str) -> str:
    urls = database_urls(empty_server)
    database.ensure_databases(urls)
    return urls.books


def test_rows_of_each_revision_are_all_there_at_the_newest(url: str) -> None:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    kept = []
    for revision in REVISIONS:
        migrate(url, revision)
        assert current_revision(url) == revision
        with engine.begin() as connection:
            for statement in ROWS:
                connection.execute(sa.text(statement), {"key": revision})
            kept.append(connection.execute(sa.text("SELECT * FROM bookclub.books ORDER BY id")).all())
    migrate(url)
    assert current_revision(url) == head_revision()
    with engine.connect() as connection:
        assert connection.execute(sa.select(tables.books).order_by("id")).all() == kept[-1] and len(kept[-1]) == 3
        for table in (tables.book_observations, tables.rejected_books, tables.loads):
            assert connection.scalars(sa.select(table.c.crawl_id).order_by("crawl_id")).all() == REVISIONS
        assert connection.execute(tables.select_history(1)).one().held_until is None


def test_models_that_readers_told_of_before_count_as_served(url: str) -> None:
    migrate(url, "0008")
    told = [
        "INSERT INTO bookclub.users (username, password_hash, scopes) VALUES ('ada', 'none', '{}')",
        BOOK,
        "INSERT INTO bookclub.feedback (user_id, event_id, kind, model, model_version, data_version, book_id, "
        "happened_at) SELECT users.id, gen_random_uuid(), kind, 'tfidf_model', '3', 1, books.id, now() "
        "FROM bookclub.users, bookclub.books, (VALUES ('shown'), ('liked')) AS kinds(kind)",
    ]
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        for statement in told:
            connection.execute(sa.text(statement), {"key": "1"})
    migrate(url)
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        assert never_served(connection, {("tfidf_model", "3"), ("tfidf_model", "4")}) == {("tfidf_model", "4")}


def test_a_database_of_a_newer_version_is_left_alone(url: str) -> None:
    migrate(url)
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("UPDATE bookclub.alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match=r"of revision 9999, which this version .* does not know"):
        migrate(url)


def test_two_starts_at_once_make_the_databases_and_tables_once(empty_server: str, postgres_url: str) -> None:
    server = sa.create_engine(
        sa.make_url(database_urls(postgres_url).books).set(database="postgres"), poolclass=sa.NullPool
    )
    start = "import sys; from bookclub_platform.cli import main; main(['db', 'upgrade'])"
    environment = os.environ | {"BOOKCLUB_DATABASE_URL": empty_server}
    with server.connect() as gate, gate.begin():
        # Both come to the gate before it opens, so that neither has made anything when the other begins.
        gate.execute(sa.select(sa.func.pg_advisory_xact_lock(database._MIGRATION_LOCK)))
        starts = [
            subprocess.Popen(
                [sys.executable, "-c", start],
                env=environment,
                cwd=Path(__file__).parents[1],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for _ in range(2)
        ]
        waiting = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        wait_for(lambda: gate.scalar(waiting) == 2, 60)
    outputs = [one.communicate(timeout=60)[0] for one in starts]
    assert [one.returncode for one in starts] == [0, 0], outputs
    assert all(f"The tables are of revision {head_revision()}." in output for output in outputs)


def test_the_command_tells_a_revision_that_is_behind_and_changes_nothing(url: str) -> None:
    migrate(url, "0002")
    command = [sys.executable, "-m", "bookclub_platform.cli", "db", "current"]
    environment = os.environ | {"BOOKCLUB_DATABASE_URL": url}
    done = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 1 and f"of revision 0002, this version needs {head_revision()}" in done.stdout
    assert current_revision(url) == "0002"
