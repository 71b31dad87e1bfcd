"""local/backup.py: what was backed up comes back whole in an empty home, or nothing does."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bookclub_platform.core import tables
from bookclub_platform.core.database import database_urls
from bookclub_platform.core.errors import AlreadyRunning, BookclubError, ConfigurationError
from bookclub_platform.core.settings import Settings, load_settings
from bookclub_platform.local.backup import BackupUnusable, backup, restore
from bookclub_platform.local.postgres import is_running, leased
from bookclub_platform_tests.test_build import BOOKCLUB
from bookclub_platform_tests.test_tables import BOOK, NOON, load_category
from bookclub_platform_tests.waiting import wait_for

PAGES = {
    "raw/shop/travel.warc.gz": b"pages\0" * 1000,
    "mlflow/artifacts/1/model.npy": b"\x93NUMPY",
    "shop": b"sandbox\n",
}


def settings_of(home: Path, database_url: str | None = None) -> Settings:
    return load_settings(home=home, database_url=database_url)


def rows(url: str) -> list[tuple[object, ...]]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return [
            tuple(row)
            for table in (tables.books, tables.book_observations, tables.loads)
            for row in connection.execute(sa.select(table))
        ]


def notes(url: str) -> list[str]:
    with sa.create_engine(url, poolclass=sa.NullPool).connect() as connection:
        return list(connection.scalars(sa.text("SELECT source FROM model_versions")))


def files(home: Path) -> dict[str, bytes]:
    return {name: (home / name).read_bytes() for name in PAGES}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a book, files, a file that belongs in no backup, and MLflow's note of where a model lies."""
    home = tmp_path_factory.mktemp("from") / "home"
    for name, content in (PAGES | {"logs/api.log": b"chatter"}).items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    with leased(home) as url:
        urls = database_urls(url)
        with sa.create_engine(urls.books, poolclass=sa.NullPool).begin() as connection:
            load_category(connection, "shop", "travel", "crawl-1", [BOOK], [], NOON)
        with sa.create_engine(urls.mlflow, poolclass=sa.NullPool).begin() as connection:
            connection.execute(sa.text("CREATE TABLE model_versions (source varchar(500))"))
            connection.execute(sa.text("INSERT INTO model_versions VALUES (:at)"), {"at": f"{home.as_uri()}/mlflow/1"})
    return home


@pytest.fixture(scope="module")
def saved(home: Path) -> Path:
    file = home.parent / "backup.tar.gz"
    backup(settings_of(home), file)
    return file


def test_a_backup_comes_back_in_an_empty_home_on_a_server_of_its_own(home: Path, saved: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()  # empty, as it may be
    restore(settings_of(there), saved)
    assert files(there) == files(home)
    assert not (there / "logs").exists()
    with leased(home) as old, leased(there) as new:
        assert rows(database_urls(new).books) == rows(database_urls(old).books) != []
        assert notes(database_urls(new).mlflow) == [f"{there.as_uri()}/mlflow/1"]
    with pytest.raises(ConfigurationError, match="is not empty, and a restore overwrites nothing"):
        restore(settings_of(there), saved)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def in_namespace(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of a user namespace of its own, where it may mount."""
    command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-ec", script, "sh"]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True)


@pytest.mark.skipif(
    shutil.which("unshare") is None or in_namespace("mount -t tmpfs none /mnt").returncode != 0,
    reason="nothing can be mounted here",
)
def test_a_backup_fills_a_home_that_is_a_mount_point(saved: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    fill = """
        mount -t tmpfs none "$1"
        mkdir "$1/lost+found"
        BOOKCLUB_HOME="$1" "$2" -m bookclub_platform.cli restore "$3"
        find "$1" -maxdepth 1 -mindepth 1 -printf "%f " && cat "$1/shop"
    """
    done = in_namespace(fill, home, BOOKCLUB[0], saved)
    assert done.returncode == 0, done.stderr
    *_, found = done.stdout.splitlines()
    assert set(found.split()) >= {"postgres", "raw", "mlflow", "shop", "lost+found"} and "sandbox" in found
    assert ".restoring" not in found


@pytest.fixture
def own_url(own_postgres_url: str) -> Iterator[str]:
    """The address of databases that do not exist yet, on a server that is not ours and most often older."""
    url = sa.make_url(own_postgres_url).set(database="shop_two")
    yield url.render_as_string(hide_password=False)
    engine = sa.create_engine(
        database_urls(own_postgres_url).books, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool
    )
    with engine.connect() as connection:
        for name in connection.scalars(
            sa.text("SELECT datname FROM pg_database WHERE starts_with(datname, 'shop_two')")
        ).all():
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def names(url: str) -> set[str]:
    with sa.create_engine(database_urls(url).books, poolclass=sa.NullPool).connect() as connection:
        return set(
            connection.scalars(sa.text("SELECT datname FROM pg_database WHERE starts_with(datname, 'shop_two')"))
        )


def test_a_backup_comes_back_on_somebody_elses_server_and_overwrites_no_rows(
    home: Path, saved: Path, own_url: str, tmp_path: Path
) -> None:
    restore(settings_of(tmp_path / "one", own_url), saved)
    with leased(home) as old:
        assert rows(database_urls(own_url).books) == rows(database_urls(old).books)
    assert names(own_url) == {"shop_two", "shop_two_dagster", "shop_two_mlflow"}
    with pytest.raises(ConfigurationError, match=r"shop_two .*has rows already"):
        restore(settings_of(tmp_path / "two", own_url), saved)
    assert files(tmp_path / "one") == files(home)
    assert not (tmp_path / "two").exists()


def test_a_restore_that_ends_between_the_databases_and_the_files_is_finished_by_the_next(
    saved: Path, own_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: Path, target: Path) -> None:
        raise OSError("the machine lost its power")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="lost its power"):
        patch.setattr(Path, "rename", gone)
        restore(settings_of(tmp_path / "home", own_url), saved)
    assert rows(database_urls(own_url).books)
    restore(settings_of(tmp_path / "home", own_url), saved)
    assert set(files(tmp_path / "home")) == set(PAGES)


def restoring(saved: Path, home: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*BOOKCLUB, "restore", saved], env=os.environ | {"BOOKCLUB_HOME": str(home)})


def test_a_restore_that_is_killed_leaves_the_home_empty_and_the_next_one_fills_it(saved: Path, tmp_path: Path) -> None:
    home, staging = tmp_path / "home", tmp_path / ".home.restoring"
    with restoring(saved, home) as process:
        wait_for(lambda: (staging / "home" / "postgres" / "server.json").exists(), 20, pause_s=0.002)
        with pytest.raises(AlreadyRunning, match="Another restore"):
            restore(settings_of(home), saved)
        process.send_signal(signal.SIGKILL)
    assert not home.exists()
    restore(settings_of(home), saved)
    assert set(files(home)) == set(PAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def rewritten(saved: Path, target: Path, change: Callable[[str, bytes], bytes | None], **more: bytes) -> Path:
    """The backup with its members as `change` makes them, and `more`."""
    with tarfile.open(saved) as old, tarfile.open(target, "w:gz") as new:
        members = {member.name: old.extractfile(member) for member in old}
        contents = {name: change(name, file.read()) for name, file in members.items() if file is not None}
        for name, content in (contents | more).items():
            if content is not None:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                new.addfile(info, io.BytesIO(content))
    return target


def as_it_is(_: str, content: bytes) -> bytes:
    return content


def edited(content: bytes, **changes: object) -> bytes:
    return json.dumps(json.loads(content) | changes).encode()


@pytest.mark.parametrize(
    ("change", "more", "told"),
    [
        (lambda name, content: content + b"!" if name.endswith(".npy") else content, {}, r"model\.npy is not as"),
        (lambda name, content: None if name.endswith("books.sql.gz") else content, {}, r"books\.sql\.gz is not as"),
        (as_it_is, {"home/.env": b"X=1"}, r"home/\.env is not as"),
        (as_it_is, {"../escaped": b"X"}, "is damaged or no backup: .*outside"),
        (lambda name, content: None if name == "manifest.json" else content, {}, "is no backup of this platform"),
        (lambda name, content: edited(content, format=99) if name == "manifest.json" else content, {}, "format 99"),
        (lambda name, content: edited(content, id="'; DROP") if name == "manifest.json" else content, {}, "is damaged"),
    ],
)
def test_a_spoilt_backup_is_refused_before_anything_is_touched(
    saved: Path, tmp_path: Path, change: Callable[[str, bytes], bytes | None], more: dict[str, bytes], told: str
) -> None:
    spoilt = rewritten(saved, tmp_path / "spoilt.tar.gz", change, **more)
    with pytest.raises(BackupUnusable, match=told):
        restore(settings_of(tmp_path / "home"), spoilt)
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.tar.gz"]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_backup_that_was_cut_off_is_refused(saved: Path, tmp_path: Path, part: float) -> None:
    content = saved.read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(content[: int(part * len(content))])
    with pytest.raises(BackupUnusable, match="is damaged or no backup"):
        restore(settings_of(tmp_path / "home"), tmp_path / "cut.tar.gz")


def test_there_is_nothing_to_back_up_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing to back up"):
        backup(settings_of(tmp_path), tmp_path / "backup.tar.gz")
    assert not is_running(tmp_path)


def test_a_backup_that_fails_leaves_the_last_one_as_it_was(home: Path, tmp_path: Path) -> None:
    last = tmp_path / "backup.tar.gz"
    last.write_bytes(b"the last one")
    with pytest.raises(BookclubError, match=r"127\.0\.0\.1:9 "):
        backup(settings_of(home, "postgresql://me@127.0.0.1:9/shop"), last)
    assert last.read_bytes() == b"the last one"
    assert [path.name for path in tmp_path.iterdir()] == ["backup.tar.gz"]
