"""The operator's hand on the accounts: name and password -> an account, with more scopes than anyone's if asked for.

    settings = load_settings()
    add(settings, "ada", "correct horse battery staple", is_admin=True); disable(settings, "ada"); rotate_keys(settings)

Works on the database of BOOKCLUB_DATABASE_URL, else on the embedded one. Every act goes to the log `bookclub.audit`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from getpass import getuser

import sqlalchemy as sa

from bookclub_platform.core import accounts, audit, passwords
from bookclub_platform.core.database import database_urls, migrate
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.settings import Settings
from bookclub_platform.core.token_keys import KeyRing


def add(settings: Settings, username: str, password: str, is_admin: bool, more: Collection[str] = ()) -> None:
    """Make an account, with the scopes of anyone and `more`, or with all.

    Raises:
        ConfigurationError: the name is taken or cannot be one, or the password is weak.
    """
    name = username.lower()
    if not re.fullmatch(accounts.USERNAME, name):
        raise ConfigurationError(f"{username} cannot be a name: {accounts.USERNAME_RULE}")
    passwords.check_password(name, password)
    scopes = [scope for scope in accounts.SCOPES if is_admin or scope in (*accounts.FOR_ANYONE, *more)]
    with _transaction(settings) as connection:
        user_id = accounts.add_user(connection, name, passwords.hash_password(password), scopes)
    if user_id is None:
        raise ConfigurationError(f"There is an account {name} already: `bookclub users list`. Choose another name.")
    audit.note("add-user", "done", by=getuser(), user_id=user_id, username=name, scopes=scopes)


def listed(settings: Settings) -> list[accounts.User]:
    """All accounts, by name."""
    with _transaction(settings) as connection:
        return accounts.list_users(connection)


def disable(settings: Settings, username: str) -> None:
    """Shut an account out: within seconds none of its tokens is taken any more.

    Raises:
        ConfigurationError: there is no such account.
    """
    with _transaction(settings) as connection:
        user = _find(connection, username)
        accounts.disable_user(connection, user.id)
    audit.note("disable-user", "done", by=getuser(), user_id=user.id, username=user.username)


def set_password(settings: Settings, username: str, password: str) -> None:
    """Give an account another password, as where its owner forgot it, and end its sessions.

    Raises:
        ConfigurationError: there is no such account, or the password is weak.
    """
    passwords.check_password(username.lower(), password)
    with _transaction(settings) as connection:
        user = _find(connection, username)
        accounts.change_password(connection, user.id, passwords.hash_password(password))
    audit.note("set-password", "done", by=getuser(), user_id=user.id, username=user.username)


def rotate_keys(settings: Settings) -> str:
    """Sign with a new key from now on -> its id. Tokens that the old one signed stay good until their time is over."""
    kid = KeyRing(settings.token_keys_file).rotate().kid
    audit.note("rotate-keys", "done", by=getuser(), kid=kid)
    return kid


def _find(connection: sa.Connection, username: str) -> accounts.User:
    user = accounts.find_user(connection, username.lower())
    if user is None:
        raise ConfigurationError(f"There is no account {username}: `bookclub users list` shows those there are.")
    return user


@contextmanager
def _transaction(settings: Settings) -> Iterator[sa.Connection]:
    engine = sa.create_engine(_migrated(settings), poolclass=sa.NullPool)
    with engine.begin() as connection:
        yield connection


def _migrated(settings: Settings) -> str:
    if settings.database_url is None:
        from bookclub_platform.local.database import open_databases  # needs what the serving image does not have

        return open_databases(settings).books
    url = database_urls(settings.database_url).books
    migrate(url)
    return url
