"""A file -> the secret keys that sign access tokens: created on first use, shared by all workers, can be rotated.

    ring = KeyRing(home / "serving" / "token_keys.json"); ring.current().secret; ring.rotate()

The newest key signs. An older key still verifies for as long as a token that it signed may live; then it is dropped.
Whoever can read the file can impersonate anyone, so it is created for its owner only, and refused if others may read
it. If the file becomes unusable, processes that have read it go on with the keys that they have: see `KeyRing.fault`.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.files import replaced

log = logging.getLogger(__name__)

TOKEN_LIFE_S = 600
_CLOCKS_DIFFER_S = 60


@dataclass(frozen=True, slots=True)
class Key:
    """One secret; `replaced_at` is when the next one took over, in seconds since 1970."""

    kid: str
    secret: bytes
    replaced_at: float | None


class KeyRing:
    """The keys in `path`, read again whenever the file changes: a rotation takes effect in every worker at once.

    Attributes:
        fault: why the file cannot be used now, although its keys were read before; None if it can.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._keys: dict[str, Key] = {}
        self.fault: str | None = None

    def current(self) -> Key:
        """The key that signs.

        Raises:
            ConfigurationError: the file exists but cannot be used, or cannot be created, and no keys were read before.
        """
        self._look()
        return next(key for key in self._keys.values() if key.replaced_at is None)

    def find(self, kid: str) -> Key | None:
        """The key with that id; None if there is none, or if the last token that it signed has expired."""
        self._look()
        key = self._keys.get(kid)
        return None if key is None or _is_over(key) else key

    def all(self) -> list[Key]:
        """The key that signs, and those whose tokens may still be valid."""
        self._look()
        return [key for key in self._keys.values() if not _is_over(key)]

    def rotate(self) -> Key:
        """Create a new key that signs from now on."""
        with self._locked():
            old = self._read() if self._path.exists() else {}
            now = time.time()
            replaced = [Key(key.kid, key.secret, key.replaced_at or now) for key in old.values() if not _is_over(key)]
            new = Key(secrets.token_hex(8), secrets.token_bytes(32), None)
            self._write([new, *replaced])
        self._look()
        return new

    def _look(self) -> None:
        try:
            self._read_if_changed()
            fault = None
        except ConfigurationError as error:
            if not self._keys:
                raise
            fault = str(error)  # failing every request with a token would not help
        if fault is not None and fault != self.fault:
            log.error("%s Until then the keys that were read before are used.", fault)
        self.fault = fault

    def _read_if_changed(self) -> None:
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            self._make()
            stat = self._path.stat()
        except OSError as error:
            raise self._unusable(error) from error
        seen = (stat.st_ino, stat.st_ctime_ns)  # ctime also covers a change of permissions
        if seen != self._seen:
            self._keys, self._seen = self._read(), seen

    def _make(self) -> None:
        with self._locked():
            if not self._path.exists():  # another worker may have been first
                self._write([Key(secrets.token_hex(8), secrets.token_bytes(32), None)])

    def _read(self) -> dict[str, Key]:
        try:
            if self._path.stat().st_mode & 0o027:
                raise ConfigurationError(f"{self._path} holds secrets, and others may read or change it: chmod 600 it.")
            entries = json.loads(self._path.read_text())["keys"]
            keys = [Key(entry["kid"], base64.b64decode(entry["secret"]), entry["replaced_at"]) for entry in entries]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._unusable(error) from error
        if [key.replaced_at for key in keys].count(None) != 1 or min(len(key.secret) for key in keys) < 32:
            raise self._unusable(ValueError("it needs one current key, and 32 bytes in each"))
        return {key.kid: key for key in keys}

    def _write(self, keys: list[Key]) -> None:
        """Replace the file atomically: a worker may read it at any moment."""
        entries = [
            {"kid": key.kid, "secret": base64.b64encode(key.secret).decode(), "replaced_at": key.replaced_at}
            for key in keys
        ]
        with replaced(self._path, mode=0o600) as file:
            if os.geteuid() == 0 and self._path.exists():  # root rotates the keys of a server that is not root's
                os.fchown(file.fileno(), self._path.stat().st_uid, self._path.stat().st_gid)
            file.write(json.dumps({"keys": entries}, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"The keys for access tokens in {self._path} cannot be used: {error}. Mend or delete the file (deleting it "
            "ends the tokens in use), or set BOOKCLUB_TOKEN_KEYS to another."
        )


def _is_over(key: Key) -> bool:
    return key.replaced_at is not None and time.time() > key.replaced_at + TOKEN_LIFE_S + _CLOCKS_DIFFER_S
