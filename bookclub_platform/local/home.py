"""BOOKCLUB_HOME: which shop it was filled from, and which process holds it.

A home holds the books of one shop at a time. When another shop is configured, the current content is moved below
`other-shops/`, and restored when its shop is configured again. So made-up books never mix with real ones, and nothing
is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bookclub_platform.core.errors import AlreadyRunning, ConfigurationError
from bookclub_platform.core.files import replaced
from bookclub_platform.core.settings import Settings
from bookclub_platform.local.postgres import is_held, is_running

SANDBOX = "sandbox"
NEEDED_BYTES = 500 * 2**20
KEPT_PER_SHOP = ["postgres", "dagster", "mlflow", "raw", "cleaned", "covers", "report", "serving", "built.json"]


def settle(home: Path, shop: str) -> str | None:
    """Make `home` the home of `shop` (an address, or `sandbox`); return a sentence for people if something was moved.

    Raises:
        AlreadyRunning: the home is in use for another shop.
    """
    home.mkdir(parents=True, exist_ok=True)
    note, held = home / "shop", held_shop(home)
    if held == shop:
        return None
    if held is not None:
        if is_running(home):
            raise AlreadyRunning(
                f"{home} is in use for {held}. End what runs there, or set BOOKCLUB_SHOP_URL={held}, "
                f"or set BOOKCLUB_HOME to another folder for {shop}."
            )
        _move(home, home / "other-shops" / _folder_name(held))
        _move(home / "other-shops" / _folder_name(shop), home)
    note.write_text(shop + "\n")
    return held and f"{home} held the books of {held}: they are put aside, and come back when that shop is asked for."


def held_shop(home: Path) -> str | None:
    """The shop that `home` was filled from: an address, or `sandbox`."""
    note = home / "shop"
    return note.read_text().strip() if note.exists() else None


def check_shop(settings: Settings, address: str) -> None:
    """Call it before the shop at `address` is asked: `dagster dev` settles no home, and must not mix two shops in one.

    Raises:
        ConfigurationError: the embedded home holds the books of another shop.
    """
    held = held_shop(settings.home)
    if not _is_of_home(settings, address) or held in (None, settings.shop_url):
        return
    theirs = f"http://127.0.0.1:{settings.sandbox_port}" if held == SANDBOX else held
    if theirs != settings.shop_url:
        raise ConfigurationError(
            f"{settings.home} holds the books of {held}, and {settings.shop_url} is another shop: it was asked for "
            f"nothing. Set BOOKCLUB_SHOP_URL={theirs}, or BOOKCLUB_HOME to another folder."
        )


def note_shop(settings: Settings, address: str) -> None:
    """Note that the embedded home holds the books of the shop at `address`, unless it is noted already."""
    if _is_of_home(settings, address) and held_shop(settings.home) is None:
        settings.home.mkdir(parents=True, exist_ok=True)
        (settings.home / "shop").write_text(settings.shop_url + "\n")


def _is_of_home(settings: Settings, address: str) -> bool:
    return settings.database_url is None and address.rstrip("/") == settings.shop_url


def _move(source: Path, target: Path) -> None:
    for name in KEPT_PER_SHOP:
        if (source / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            (source / name).rename(target / name)


def _folder_name(shop: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", shop)


def check_disk(home: Path) -> None:
    """Raise ConfigurationError if there is too little disk space for the platform to start."""
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < NEEDED_BYTES:
        raise ConfigurationError(
            f"The disk of {home} has {free / 2**20:.0f} MB left, and the platform needs {NEEDED_BYTES / 2**20:.0f} MB. "
            "Make room, or set BOOKCLUB_HOME to a folder on another disk."
        )


def dagster_home(home: Path) -> Path:
    """Dagster's own folder, with a copy of the project's dagster.yaml: the value for DAGSTER_HOME."""
    folder = home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    told, wanted = folder / "dagster.yaml", project_file("dagster.yaml").read_bytes()
    if not told.exists() or told.read_bytes() != wanted:  # running processes of Dagster may read it
        with replaced(told) as file:
            file.write(wanted)
    return folder


def artifact_root(home: Path) -> str:
    """The URI under which the embedded MLflow stores model files, whether its server is running or not."""
    return (home / "mlflow" / "artifacts").as_uri()


def project_file(name: str) -> Path:
    """The path of a file in the project's root folder.

    Raises:
        ConfigurationError: it is neither in the working folder nor in the package's project folder.
    """
    here, project = Path.cwd(), Path(__file__).parents[2]
    for folder in (here, project):
        if (folder / name).exists():
            return folder / name
    raise ConfigurationError(f"{name} is neither in {here} nor in {project}: run this in the project's folder.")


def mark_built(home: Path) -> None:
    """Record that everything has been materialised once."""
    (home / "built.json").write_text(json.dumps({"built_at": datetime.now(UTC).isoformat()}))


def is_built(home: Path) -> bool:
    return (home / "built.json").exists()


def is_up(home: Path) -> bool:
    """Whether a `bookclub up` is running on `home`."""
    return is_held(home / "up.lock")


@contextmanager
def held_by_us(home: Path) -> Iterator[None]:
    """Allow only one `bookclub up` at a time per home.

    Raises:
        AlreadyRunning: another one is running; the text has its process id.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise AlreadyRunning(
                f"The platform already runs on {home} (process {lock.read().strip() or 'unknown'}). "
                "Use it, or end it with Ctrl-C there, or set BOOKCLUB_HOME and the ports for a second one."
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
