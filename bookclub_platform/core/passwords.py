"""Password -> argon2id hash, and the two of them -> whether they belong together.

    kept = hash_password("correct horse battery staple"); is_password("correct horse battery staple", kept)

Each takes about 25 ms and 19 MB: never call them on an event loop; nor `weakness`, which takes 0.3 ms, and 30 of what
is made to be slow.
"""

from __future__ import annotations

import re
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn_rs_py import zxcvbn

from bookclub_platform.core.errors import ConfigurationError

MIN_LENGTH, MAX_LENGTH = 12, 256
# zxcvbn takes seconds over 72 characters that may each stand for a letter, and holds up all threads meanwhile.
_JUDGED = 24
_SAFE = 3  # of zxcvbn's 0 to 4: it takes more than 10^8 guesses
_OURS = ("bookclub", "book club")

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


def is_same(one: str, other: str) -> bool:
    """Whether they are the same password, however a keyboard writes it."""
    return _normal(one) == _normal(other)


def is_outdated(kept: str) -> bool:
    """Whether `kept` was made with other costs than we ask today."""
    return _hasher.check_needs_rehash(kept)


def weakness(username: str, password: str) -> str | None:
    """Why `password` may not be one, in words that follow "The password"; None if it may.

    NIST SP 800-63B: length counts, and what is tried first is refused: common passwords, words, rows of keys and dates,
    with little changed or added, and what the account or this service is called. No mixture of characters is asked for.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        return f"must have {MIN_LENGTH} to {MAX_LENGTH} characters."
    if username.casefold() in password.casefold():
        return "must not contain the name."
    known = [username, *re.split(r"[\W_]+", username), *_OURS]
    if int(zxcvbn(_normal(password)[:_JUDGED], known).score) < _SAFE:
        begun = "begins with what is" if len(password) > _JUDGED else "is"
        return f"{begun} easy to guess: a common password, word or pattern. A few words at random are better."
    return None


def check_password(username: str, password: str) -> None:
    """Raise ConfigurationError if `password` may not be one: for the command line."""
    if (why := weakness(username, password)) is not None:
        raise ConfigurationError(f"The password {why} Choose another.")


def _normal(password: str) -> str:
    """One form for what keyboards and systems write in several, such as an é of one or of two code points."""
    return unicodedata.normalize("NFKC", password)
