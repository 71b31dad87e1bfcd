"""Password -> argon2id hash; password and hash -> whether they match.

    kept = hash_password("correct horse battery staple"); is_password("correct horse battery staple", kept)

Each call takes about 25 ms and 19 MB: never make one on the event loop. The same holds for `weakness`, which takes
0.3 ms, and 30 ms for input crafted to be slow.
"""

from __future__ import annotations

import re
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn_rs_py import zxcvbn

from bookclub_platform.core.errors import ConfigurationError

MIN_LENGTH, MAX_LENGTH = 12, 256
# zxcvbn takes seconds for 72 characters that may each stand for a letter, and blocks all threads in the meantime.
_JUDGED = 24
_SAFE = 3  # on zxcvbn's scale of 0 to 4: more than 10^8 guesses
_OURS = ("bookclub", "book club")

_hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)  # OWASP's minimum for argon2id

# The password for an unknown name is compared with this hash, so that the refusal takes as long as for a known name.
# Nobody has its password.
NOBODY = "$argon2id$v=19$m=19456,t=2,p=1$wFy7qBFC14W2nu7gLcayJQ$tFwiTw+BDlJkREi9fibrdl3gLe/q9pddLKHUZTGXQm0"


def hash_password(password: str) -> str:
    """The hash to store, with its own salt."""
    return _hasher.hash(_normal(password))


def is_password(password: str, kept: str | None) -> bool:
    """Whether `kept` is the hash of `password`; False, after the same time, if `kept` is None."""
    try:
        return _hasher.verify(kept or NOBODY, _normal(password)) and kept is not None
    except (VerificationError, InvalidHashError):
        return False


def is_same(one: str, other: str) -> bool:
    """Whether they are the same password, whatever Unicode form the keyboard produces."""
    return _normal(one) == _normal(other)


def is_outdated(kept: str) -> bool:
    """Whether `kept` was made with other cost parameters than today's."""
    return _hasher.check_needs_rehash(kept)


def weakness(username: str, password: str) -> str | None:
    """Why `password` is not acceptable, in words that follow "The password"; None if it is.

    Follows NIST SP 800-63B: length counts, and whatever attackers try first is refused: common passwords, words,
    keyboard patterns and dates, also with small changes or additions, and the names of the account and of this service.
    No mix of character classes is required.
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
    """Raise ConfigurationError if `password` is not acceptable: for the command line."""
    if (why := weakness(username, password)) is not None:
        raise ConfigurationError(f"The password {why} Choose another.")


def _normal(password: str) -> str:
    """One form for characters that keyboards and systems write in several, such as é with one or two code points."""
    return unicodedata.normalize("NFKC", password)
