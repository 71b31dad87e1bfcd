"""Password -> argon2id hash, and the two of them -> whether they belong together.

    kept = hash_password("correct horse battery staple"); is_password("correct horse battery staple", kept)

Each takes about 25 ms and 19 MB: never call them on an event loop.
"""

from __future__ import annotations

import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from bookclub_platform.core.errors import ConfigurationError

MIN_LENGTH, MAX_LENGTH = 12, 256

_hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)  # OWASP's least for argon2id

# What an unknown name is compared with, so that it is refused no sooner than a known one. Nobody has its password.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$wFy7qBFC14W2nu7gLcayJQ$tFwiTw+BDlJkREi9fibrdl3gLe/q9pddLKHUZTGXQm0"


def hash_password(password: str) -> str:
    """The hash to keep, with its own salt."""
    return _hasher.hash(_normal(password))


def is_password(password: str, kept: str | None) -> bool:
    """Whether `kept` was made of `password`; False, after the same time, where there is no `kept`."""
    try:
        return _hasher.verify(kept or NOBODY, _normal(password)) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(kept: str) -> bool:
    """Whether `kept` was made with other costs than we ask today."""
    return _hasher.check_needs_rehash(kept)


def weakness(username: str, password: str) -> str | None:
    """Why `password` may not be one, in words that follow "The password"; None if it may (NIST SP 800-63B: length
    counts, prescribed mixtures of characters do not)."""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        return f"must have {MIN_LENGTH} to {MAX_LENGTH} characters."
    if username.casefold() in password.casefold():
        return "must not contain the name."
    if len(set(password)) < 5:
        return "must have 5 different characters at least."
    return None


def check_password(username: str, password: str) -> None:
    """Raise ConfigurationError if `password` may not be one: for the command line."""
    if (why := weakness(username, password)) is not None:
        raise ConfigurationError(f"The password {why} Choose another.")


def _normal(password: str) -> str:
    """One form for what keyboards and systems write in several, such as an é of one or of two code points."""
    return unicodedata.normalize("NFKC", password)
