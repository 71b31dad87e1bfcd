"""A home and its three databases -> one .tar.gz -> an empty home that serves the same.

    backup(settings, Path("bookclub.tar.gz"))           bookclub backup FILE
    restore(settings, Path("bookclub.tar.gz"))          bookclub restore FILE

The file contains each database as pg_dump writes it, the stored pages, cleaned rows, covers, models and run logs, and
at its end `manifest.json` with the sha256 of each file. It does not contain logs, caches, `.env`, sources.yaml, or the
data of other shops in `other-shops/`. It can be made while the platform is running: first the databases, each from one
snapshot, in an order in which none refers to anything missing from the next, then the files, which may be newer than
the tables but never older.

A restore works next to the home, and moves the result there as its last step. If it is killed at any moment, the home
stays empty, and the next restore starts from the beginning. If the home is there already, perhaps a mount point, which
nothing can replace, it works in `.restoring` inside, and the last step moves each entry up.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import importlib.metadata
import io
import os
import shutil
import tarfile
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.errors import AlreadyRunning, BookclubError, ConfigurationError, DatabaseUnavailable
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.database import open_databases
from bookclub_platform.local.dumps import dump, forget, restore_databases
from bookclub_platform.local.home import KEPT_PER_SHOP
from bookclub_platform.local.postgres import is_running, leased

FORMAT = 1
MANIFEST = "manifest.json"
DATABASES = "databases"
# In this order no dump refers to something that a later one lacks: runs, then models, then the rows that both refer to.
_ORDER = ("dagster", "mlflow", "books")
_OF_DISK = "lost+found"  # in the root of a new ext4 volume
_FOLDERS = [name for name in KEPT_PER_SHOP if name not in {"postgres", "serving"}] + ["shop"]


class BackupUnusable(BookclubError):
    """The file is damaged, foreign or of a newer platform; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """The description of a backup. `files` maps path -> sha256; `home` is the home that it was made from."""

    format: int
    id: uuid.UUID
    made_at: str
    platform: str
    home: str
    files: dict[str, str]


_MANIFESTS = TypeAdapter(Manifest)


def backup(settings: Settings, target: Path) -> Manifest:
    """Write everything to `target`, which appears complete or not at all.

    Raises:
        ConfigurationError: there is nothing to back up, or pg_dump is not installed or too old for the server.
    """
    if settings.database_url is None and not (settings.home / "postgres" / "data").exists():
        raise ConfigurationError(f"{settings.home} holds nothing yet: there is nothing to back up. Set BOOKCLUB_HOME.")
    if target.exists() and not target.is_file():
        raise ConfigurationError(f"{target} is there and no file: name a file for the backup.")
    urls = open_databases(settings)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
        whole = Path(folder, "whole")
        with tarfile.open(whole, "w:gz", compresslevel=1) as tar:  # nearly all of it is already compressed
            hashes: dict[str, str] = {}
            for name in _ORDER:
                dumped = Path(folder, f"{name}.sql.gz")
                dump(getattr(urls, name), dumped)
                hashes |= _add(tar, dumped, f"{DATABASES}/{dumped.name}")
                dumped.unlink()
            for path in _files(settings.home):
                hashes |= _add(tar, path, f"home/{path.relative_to(settings.home)}")
            manifest = Manifest(
                format=FORMAT,
                id=uuid.uuid4(),
                made_at=datetime.now(UTC).isoformat(timespec="seconds"),
                platform=importlib.metadata.version("bookclub-platform"),
                home=str(settings.home),
                files=hashes,
            )
            noted = Path(folder, MANIFEST)
            noted.write_bytes(_MANIFESTS.dump_json(manifest, indent=1))
            _add(tar, noted, MANIFEST)
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        whole.replace(target)
    return manifest


def restore(settings: Settings, source: Path) -> Manifest:
    """Fill the empty home, and the empty databases of BOOKCLUB_DATABASE_URL if that is set, from a backup.

    Raises:
        ConfigurationError: the home or the databases are not empty.
        BackupUnusable: the file does not match its manifest; checked before anything is changed.
    """
    home = settings.home
    home.parent.mkdir(parents=True, exist_ok=True)
    staging = home / ".restoring" if home.exists() else home.with_name(f".{home.name}.restoring")
    with _alone(staging.parent):
        _check_empty(home, {staging.name, _OF_DISK})
        return _restore(settings, source, staging)


def _restore(settings: Settings, source: Path, staging: Path) -> Manifest:
    home = settings.home
    with _emptied(staging):
        manifest = _unpack(source, staging)
        fresh = staging / "home"
        fresh.mkdir(exist_ok=True)
        dumps = {name: staging / DATABASES / f"{name}.sql.gz" for name in _ORDER}
        moved = (Path(manifest.home), home)
        if settings.database_url is None:
            with leased(fresh) as url:
                restore_databases(database_urls(url), dumps, str(manifest.id), moved)
                forget(database_urls(url))
            _wait_until_ended(fresh)
            _move(fresh, home)
        else:
            urls = database_urls(settings.database_url)
            restore_databases(urls, dumps, str(manifest.id), moved)
            _move(fresh, home)
            forget(urls)
    return manifest


def _check_empty(home: Path, ignored: set[str]) -> None:
    found = sorted({path.name for path in home.iterdir()} - ignored) if home.exists() else []
    if found:
        raise ConfigurationError(
            f"{home} is not empty, and a restore overwrites nothing. Set BOOKCLUB_HOME to a new folder, or move away "
            f"what is in this one: {', '.join(found[:5])}."
        )


def _move(fresh: Path, home: Path) -> None:
    if not home.exists():
        fresh.rename(home)
        return
    for path in fresh.iterdir():
        path.rename(home / path.name)


def _files(home: Path) -> Iterator[Path]:
    for name in _FOLDERS:
        path = home / name
        yield from sorted(found for found in path.rglob("*") if found.is_file()) if path.is_dir() else []
        if path.is_file():
            yield path


def _add(tar: tarfile.TarFile, path: Path, name: str) -> dict[str, str]:
    """Add a file with its current length: data appended later is left out. Return {} if the file is gone by now."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return {}
    with file:
        info = tar.gettarinfo(arcname=name, fileobj=file)
        hashing = _Hashing(file)
        tar.addfile(info, hashing)
    return {name: hashing.sha256.hexdigest()}


class _Hashing(io.RawIOBase):
    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        block = self.file.read(size)
        self.sha256.update(block)
        return block


def _unpack(source: Path, staging: Path) -> Manifest:
    """Extract the backup below `staging`: exactly the files in the manifest, each with its sha256."""
    try:
        with tarfile.open(source, "r:gz") as tar:
            tar.extractall(staging, filter="data")
        manifest = _MANIFESTS.validate_json((staging / MANIFEST).read_bytes())
    except FileNotFoundError as error:
        raise BackupUnusable(f"{source} is no backup of this platform: {error}.") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValidationError) as error:
        raise BackupUnusable(f"{source} is damaged or no backup: {' '.join(str(error).split())}.") from error
    if manifest.format != FORMAT:
        raise BackupUnusable(f"{source} has format {manifest.format}, and we read {FORMAT}: use a newer platform.")
    found = {str(path.relative_to(staging)): path for path in staging.rglob("*") if path.is_file()}
    del found[MANIFEST]
    faults = list(found.keys() ^ manifest.files.keys())
    faults += [name for name, path in found.items() if _sha256(path) != manifest.files.get(name)]
    faults += [name for name in (f"{DATABASES}/{one}.sql.gz" for one in _ORDER) if name not in found]
    if faults:
        raise BackupUnusable(f"{source} is damaged: {', '.join(sorted(set(faults))[:5])} is not as the manifest says.")
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Allow one restore at a time below `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise AlreadyRunning(f"Another restore works in {folder}. Wait for it.") from error
    finally:
        os.close(handle)


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """The folder, empty even after a killed restore; removed at the end."""
    try:
        _remove(folder)
        folder.mkdir(mode=0o700)
        yield
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    _wait_until_ended(folder / "home")
    if folder.exists():
        shutil.rmtree(folder)


def _wait_until_ended(home: Path, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while is_running(home):
        if time.monotonic() > deadline:
            raise DatabaseUnavailable(f"The Postgres of {home} did not end within {timeout_s:.0f} s.")
        time.sleep(0.05)
