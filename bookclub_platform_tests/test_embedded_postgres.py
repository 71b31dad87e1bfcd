"""local/: a server that lives as long as somebody holds a lease on it, and one that is somebody else's."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import psycopg
import pytest
import sqlalchemy as sa

from bookclub_platform.core import tables
from bookclub_platform.core.errors import DatabaseUnavailable
from bookclub_platform.core.settings import load_settings
from bookclub_platform.local.database import open_databases
from bookclub_platform.local.postgres import check, is_running, leased
from bookclub_platform_tests.waiting import wait_for

HOLDER = """
import sys, time
from pathlib import Path
from bookclub_platform.local.postgres import lease
print(lease(Path(sys.argv[1])), flush=True)
time.sleep(60)
"""


def server_pid(home: Path) -> int:
    return int(json.loads((home / "postgres" / "server.json").read_text())["pid"])


def test_the_server_ends_with_its_last_lease_and_keeps_its_rows(tmp_path: Path) -> None:
    with leased(tmp_path) as url:
        with leased(tmp_path) as same_url:
            assert same_url == url
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    wait_for(lambda: not is_running(tmp_path))
    with leased(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_killed_server_comes_back_at_the_same_address_with_what_was_committed(tmp_path: Path) -> None:
    with leased(tmp_path) as url:
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        killed = server_pid(tmp_path)
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: server_pid(tmp_path) != killed)
        with leased(tmp_path) as again, psycopg.connect(again) as connection:
            assert again == url
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)


def test_a_killed_user_leaves_no_server_behind(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith(b"postgresql://")
        assert is_running(tmp_path)
        holder.kill()
    wait_for(lambda: not is_running(tmp_path))


def test_a_killed_supervisor_is_replaced_and_its_server_with_it(tmp_path: Path) -> None:
    with leased(tmp_path):
        orphan = server_pid(tmp_path)
        supervisor = int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(orphan)]))
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: not is_running(tmp_path))
        with leased(tmp_path) as url, psycopg.connect(url):
            assert server_pid(tmp_path) != orphan


def test_a_process_id_that_another_program_has_by_now_stops_no_start(tmp_path: Path) -> None:
    with leased(tmp_path) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    wait_for(lambda: not is_running(tmp_path))
    owner = (tmp_path / "postgres" / "data").stat()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid, group=owner.st_gid) as other:
        left = tmp_path / "postgres" / "data" / "postmaster.pid"  # as after a power cut
        left.write_text(f"{other.pid}\n{left.parent}\n1\n5432\n\n127.0.0.1\n")
        os.chown(left, owner.st_uid, owner.st_gid)
        with leased(tmp_path) as url, psycopg.connect(url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        assert other.poll() is None
        other.kill()


def test_a_living_orphan_is_known_without_ps_and_under_a_locale_that_lacks_the_letters_of_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, tools = tmp_path / "Bücher", tmp_path / "tools"
    tools.mkdir()
    if setpriv := shutil.which("setpriv"):
        (tools / "setpriv").symlink_to(setpriv)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("LC_ALL", "C")
    with leased(home):
        orphan = psutil.Process(server_pid(home))
        os.kill(orphan.ppid(), signal.SIGKILL)
        wait_for(lambda: not is_running(home))
        with leased(home) as url, psycopg.connect(url):
            assert server_pid(home) != orphan.pid
            assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_nobody_starts_again_is_told_with_its_log(tmp_path: Path) -> None:
    with leased(tmp_path):
        check(tmp_path)

        def is_given_up() -> bool:
            with contextlib.suppress(ProcessLookupError):
                os.kill(server_pid(tmp_path), signal.SIGKILL)
            return not is_running(tmp_path)

        wait_for(is_given_up, 60)
        with pytest.raises(DatabaseUnavailable, match=r"(?s)nobody starts it again.*giving up"):
            check(tmp_path)


def test_the_server_listens_on_loopback_alone_and_asks_for_the_password(tmp_path: Path) -> None:
    with leased(tmp_path) as url, psycopg.connect(url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        port = connection.info.port
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://bookclub@127.0.0.1:{port}/bookclub")
    assert (tmp_path / "postgres" / "password").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a folder to the server's own user")
def test_it_runs_as_another_user_below_a_closed_folder_and_opens_nothing(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with leased(closed / "home") as url, psycopg.connect(url):
        owner = int(subprocess.check_output(["ps", "-o", "uid=", "-p", str(server_pid(closed / "home"))]))
        assert owner != 0
    assert closed.stat().st_mode & 0o777 == 0o700


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with leased(tmp_path):
        pass
    wait_for(lambda: not is_running(tmp_path))
    (tmp_path / "postgres" / "data" / "PG_VERSION").write_text("9.1\n")
    with pytest.raises(DatabaseUnavailable, match=r"(?s)postgres\.log.*9\.1"), leased(tmp_path):
        pass


def test_a_server_of_ones_own_gets_the_databases_and_tables_that_are_missing(postgres_url: str) -> None:
    own = sa.make_url(postgres_url).set(database="own_shop").render_as_string(hide_password=False)
    urls = open_databases(load_settings(database_url=own))
    with sa.create_engine(urls.books, poolclass=sa.NullPool).connect() as connection:
        assert connection.scalar(tables.select_data_version()) == 0
        names = set(connection.scalars(sa.text("SELECT datname FROM pg_database")))
    assert names >= {"own_shop", "own_shop_dagster", "own_shop_mlflow"}


def test_a_server_that_is_away_is_told_with_its_address(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"127\.0\.0\.1:9 "):
        open_databases(load_settings(database_url="postgresql://me:word@127.0.0.1:9/shop"))
