"""The real parts that tests share: a Postgres server for the session, a fresh migrated database for each module."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core.database import database_urls, migrate, wait_until_up
from bookclub_platform.local import postgres_binaries
from bookclub_platform.local.postgres import leased
from bookclub_platform_tests.local_http import free_port

# A test run that a script started with & ignores SIGINT, and Dagster, in this process, would let it ignore SIGTERM too:
# the processes that tests start would inherit that, and never end.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).parents[2] / "shared"
SYSTEM_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
_numbers = itertools.count()
TEST_DATABASE_URL = os.environ.get("BOOKCLUB_TEST_DATABASE_URL")  # read before the environment is emptied


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_servers: run on the embedded Postgres and on somebody else's")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_servers"):
        metafunc.parametrize("server_url", ["embedded", "own"], indirect=True, scope="module")


@pytest.fixture(autouse=True)
def commands_leave_the_environment_as_it_was() -> Iterator[None]:
    """`bookclub` sets this for all that it starts; what other tests start finds its modules beside it."""
    before = {name: os.environ.get(name) for name in ("PYTHONSAFEPATH", "no_proxy", "NO_PROXY")}
    yield
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


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


@pytest.fixture(scope="session")
def own_postgres_url(tmp_path_factory: pytest.TempPathFactory, _own_environment: None) -> Iterator[str]:
    """The address of a server that is not ours: BOOKCLUB_TEST_DATABASE_URL's, else one made with the system's Postgres
    (here most often an older one), with its own defaults and a role that may create databases and nothing else."""
    if TEST_DATABASE_URL is not None:
        yield TEST_DATABASE_URL
        return
    if not SYSTEM_POSTGRES:
        pytest.skip("no Postgres but the embedded one: install one, or set BOOKCLUB_TEST_DATABASE_URL")
    yield from _system_server(tmp_path_factory.mktemp("own") / "data")


def _system_command(program: str, data: Path) -> list[str]:
    """Patched for this moment alone: the embedded server beside it keeps its own programs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_binaries, "folder", lambda: SYSTEM_POSTGRES[-1])
        return postgres_binaries.command(program, data)


def _system_server(data: Path) -> Iterator[str]:
    data.mkdir(mode=0o700)
    postgres_binaries.give(data)
    initdb = [
        *_system_command("initdb", data),
        "-D",
        str(data),
        "-U",
        "postgres",
        "-A",
        "trust",
        "-E",
        "UTF8",
    ]
    subprocess.run([*initdb, "--locale", "C.UTF-8", "--no-sync"], cwd="/", check=True, capture_output=True)
    port = free_port()
    command = [
        *_system_command("postgres", data),
        "-D",
        str(data),
        "-p",
        str(port),
        "-k",
        "",
        "-c",
        "fsync=off",
    ]
    with subprocess.Popen(command, cwd="/", stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_up(f"postgresql://postgres@127.0.0.1:{port}/postgres")
            admin = sa.create_engine(
                f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres",
                isolation_level="AUTOCOMMIT",
                poolclass=sa.NullPool,
            )
            with admin.connect() as connection:
                connection.execute(sa.text("CREATE ROLE shopkeeper LOGIN CREATEDB"))
                connection.execute(sa.text("CREATE DATABASE bookclub OWNER shopkeeper"))
            yield f"postgresql://shopkeeper@127.0.0.1:{port}/bookclub"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(10)
    shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="module")
def server_url(request: pytest.FixtureRequest, postgres_url: str) -> str:
    """The server of `database_url`: the embedded one, unless the module asks for both."""
    is_own = getattr(request, "param", "embedded") == "own"
    return str(request.getfixturevalue("own_postgres_url")) if is_own else postgres_url


@pytest.fixture(scope="module")
def database_url(server_url: str) -> Iterator[str]:
    """The address (with driver) of a fresh, migrated books database."""
    name = f"books_{next(_numbers)}"
    own = sa.make_url(database_urls(server_url).books)
    server = sa.create_engine(own, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    url = own.set(database=name).render_as_string(hide_password=False)
    migrate(url)
    yield url
    with server.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def connection(database_url: str) -> Iterator[sa.Connection]:
    """A connection whose transaction is rolled back after the test."""
    engine = sa.create_engine(database_url)
    with engine.connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()
    engine.dispose()
