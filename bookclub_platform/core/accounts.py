"""Accounts in Postgres: users, their sessions, and the refresh tokens of each session. Only this module has their SQL.

    users           one row per account; a password is stored as an argon2id hash
    sessions        one row per login, until logout, a change of the password or 30 days end it
    refresh_tokens  every token issued to a session, as a SHA-256: one that is reused late was stolen

All functions take a connection inside a transaction and are synchronous; serving runs them on an asynchronous
connection with `run_sync`. None raises for a caller's mistake: an unknown name or token is an ordinary result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID, uuid4

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bookclub_platform.core.tables import metadata

_moment = sa.DateTime(timezone=True)
_now = sa.func.clock_timestamp(
    type_=_moment
)  # now() is the start of the transaction, which may have waited for a lock since

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("username", sa.Text, nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
    sa.Column("created_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.Column("disabled_at", _moment),
    sa.CheckConstraint("username = lower(username)", name="username"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.BigInteger, sa.ForeignKey(users.c.id, ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
    sa.Column("started_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.Column("expires_at", _moment, nullable=False),
    sa.Column("ended_at", _moment),
    sa.Column("ended_by", sa.Text),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("digest", sa.LargeBinary, primary_key=True),
    sa.Column("session_id", sa.Uuid, sa.ForeignKey(sessions.c.id, ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("issued_at", _moment, nullable=False, server_default=sa.func.now()),
    sa.Column("used_at", _moment),
)

# What a token may allow; only an operator's command creates accounts with `readers` or `admin`.
SCOPES = {
    "read": "Books, categories, statistics, recommendations.",
    "export": "Export of the whole catalogue.",
    "feedback": "Send feedback on recommendations.",
    "readers": "Name the readers in feedback, for a shop's server.",
    "admin": "Start crawls and see their progress.",
}
# ASCII, so that no name can look like another.
MIN_NAME, MAX_NAME = 3, 64
USERNAME = rf"^[A-Za-z0-9][A-Za-z0-9._@+-]{{{MIN_NAME - 1},{MAX_NAME - 1}}}$"
USERNAME_RULE = f"{MIN_NAME} to {MAX_NAME} letters, digits and . _ @ + -, beginning with a letter or digit."
FOR_ANYONE = ("read", "export", "feedback")

ENDED_FOR = timedelta(days=1)  # how long an ended session can still be looked up
FORGOTTEN_AT_ONCE = 10_000  # sessions, each with some thousand tokens at most

EndedBy = Literal["logout", "password", "reuse", "disabled"]
Deletion = Literal["deleted", "replaced", "last"]
ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class User:
    """An account as stored; `scopes` are those that its tokens may be given."""

    id: int
    username: str
    password_hash: str
    scopes: Sequence[str]
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Renewal:
    """The outcome of presenting a refresh token: `renewed`; `repeated` (it was renewed before, and its successor is
    unused); `reused` (its session has now been ended); or `refused`. `following` is the successor's digest, if any."""

    outcome: Literal["renewed", "repeated", "reused", "refused"]
    user_id: int | None = None
    session_id: UUID | None = None
    scopes: Sequence[str] = ()
    following: bytes | None = None


def add_user(connection: sa.Connection, username: str, password_hash: str, scopes: Sequence[str]) -> int | None:
    """The new account's id; None if the name (in lower case) is taken."""
    values = {"username": username, "password_hash": password_hash, "scopes": list(scopes)}
    found: int | None = connection.scalar(
        insert(users).values(values).on_conflict_do_nothing(index_elements=["username"]).returning(users.c.id)
    )
    return found


def find_user(connection: sa.Connection, username: str) -> User | None:
    row = connection.execute(sa.select(users).where(users.c.username == username)).one_or_none()
    return None if row is None else User(**row._mapping)


def find_user_by_id(connection: sa.Connection, user_id: int) -> User | None:
    row = connection.execute(sa.select(users).where(users.c.id == user_id)).one_or_none()
    return None if row is None else User(**row._mapping)


def list_users(connection: sa.Connection) -> list[User]:
    """All accounts, by name."""
    return [User(**row._mapping) for row in connection.execute(sa.select(users).order_by(users.c.username))]


def disable_user(connection: sa.Connection, user_id: int) -> None:
    """Block further logins of the user, and end all their sessions."""
    connection.execute(
        sa.update(users).where(users.c.id == user_id, users.c.disabled_at.is_(None)).values(disabled_at=_now)
    )
    _end(connection, sessions.c.user_id == user_id, "disabled")


def delete_user(connection: sa.Connection, user_id: int, proved_hash: str) -> Deletion:
    """Delete a user with their sessions and feedback. Do nothing if `proved_hash`, which the password was compared
    with, is no longer the stored one (`replaced`), or if no administrator would be left (`last`)."""
    # Lock all of them, always in the same order: if the last two are deleted at once, only one may go.
    is_admin = sa.and_(users.c.scopes.any(ADMIN), users.c.disabled_at.is_(None))
    admins = connection.scalars(sa.select(users.c.id).where(is_admin).order_by(users.c.id).with_for_update()).all()
    if list(admins) == [user_id]:
        return "last"
    if connection.scalar(_locked(user_id, proved_hash)) is None:
        return "replaced"
    connection.execute(sa.delete(users).where(users.c.id == user_id))
    return "deleted"


def set_password_hash(connection: sa.Connection, user_id: int, password_hash: str) -> None:
    """Store a new hash of the same password."""
    connection.execute(sa.update(users).where(users.c.id == user_id).values(password_hash=password_hash))


def change_password(
    connection: sa.Connection, user_id: int, password_hash: str, proved_hash: str | None = None
) -> Sequence[UUID] | None:
    """Store the hash of a new password, and end and return every session, so that whoever knew the old password is out.
    Return None and change nothing if `proved_hash`, which the old one was compared with, is no longer the stored
    hash."""
    if proved_hash is not None and connection.scalar(_locked(user_id, proved_hash)) is None:
        return None
    set_password_hash(connection, user_id, password_hash)
    return _end(connection, sessions.c.user_id == user_id, "password")


def open_session(
    connection: sa.Connection,
    user_id: int,
    proved_hash: str,
    scopes: Sequence[str],
    digest: bytes,
    lasts: timedelta,
) -> UUID | None:
    """Open a session with its first refresh token; None if the user was disabled, or if `proved_hash`, which their
    password was compared with, has been replaced in the meantime. Deletes the user's expired sessions."""
    if connection.scalar(_locked(user_id, proved_hash)) is None:
        return None
    connection.execute(sa.delete(sessions).where(sessions.c.user_id == user_id, sessions.c.expires_at < _now))
    session_id = uuid4()
    values = {"id": session_id, "user_id": user_id, "scopes": list(scopes), "expires_at": _now + lasts}
    connection.execute(sa.insert(sessions).values(values))
    connection.execute(sa.insert(refresh_tokens).values(digest=digest, session_id=session_id))
    return session_id


def renew(connection: sa.Connection, digest: bytes, following: Sequence[bytes], grace: timedelta) -> Renewal:
    """Exchange the refresh token `digest` for the first of `following`.

    A response may be lost, and two requests of a client may race. So during `grace` a used token returns the same
    successor again, any of `following`, as long as that is unused. Otherwise either this caller or an earlier one
    is a thief, so the session ends for both.
    """
    same_token = refresh_tokens.c.digest == digest
    is_recent = (refresh_tokens.c.used_at > _now - grace).label("is_recent")
    found = sa.select(refresh_tokens, is_recent).where(same_token).with_for_update()
    token = connection.execute(found).one_or_none()
    if token is None:
        return Renewal("refused")
    session = connection.execute(_live_session(token.session_id)).one_or_none()
    if session is None:
        return Renewal("refused")
    if token.used_at is not None:
        unused = _unused(connection, session.id, following) if token.is_recent else None
        if unused is None:
            _end(connection, sessions.c.id == session.id, "reuse")
            return Renewal("reused", session.user_id, session.id)
        return Renewal("repeated", session.user_id, session.id, session.scopes, unused)
    connection.execute(sa.update(refresh_tokens).where(same_token).values(used_at=_now))
    connection.execute(sa.insert(refresh_tokens).values(digest=following[0], session_id=session.id))
    return Renewal("renewed", session.user_id, session.id, session.scopes, following[0])


def forget_sessions(connection: sa.Connection, at_most: int = FORGOTTEN_AT_ONCE) -> int:
    """Delete expired sessions, and those ended more than a day ago, with their refresh tokens, at most `at_most`;
    return how many. All tokens of open sessions stay until the session expires, to detect the reuse of a stolen one."""
    is_over = sa.or_(sessions.c.expires_at < _now, sessions.c.ended_at < _now - ENDED_FOR)
    over = sa.select(sessions.c.id).where(is_over).limit(at_most)
    return connection.execute(sa.delete(sessions).where(sessions.c.id.in_(over))).rowcount


def is_live(connection: sa.Connection, session_id: UUID) -> bool:
    """Whether tokens of that session are still valid."""
    return connection.execute(_live_session(session_id)).one_or_none() is not None


def open_sessions(connection: sa.Connection, user_id: int) -> int:
    """How many sessions of the user are still open."""
    is_open = sa.and_(sessions.c.ended_at.is_(None), sessions.c.expires_at > _now)
    counted = sa.select(sa.func.count()).select_from(sessions).where(sessions.c.user_id == user_id, is_open)
    return int(connection.scalar(counted) or 0)


def end_session(connection: sa.Connection, session_id: UUID, by: EndedBy) -> None:
    _end(connection, sessions.c.id == session_id, by)


def end_session_of(connection: sa.Connection, digest: bytes) -> tuple[int, UUID] | None:
    """End the open session of the refresh token `digest`, used or not -> (user, session); None if there is none."""
    given = sa.select(sessions.c.user_id, sessions.c.id).join(refresh_tokens).where(refresh_tokens.c.digest == digest)
    session = connection.execute(given.where(sessions.c.ended_at.is_(None))).one_or_none()
    if session is None:
        return None
    end_session(connection, session.id, "logout")
    return session.user_id, session.id


def _locked(user_id: int, proved_hash: str) -> sa.Select[Any]:
    """Select and lock the user, if enabled and still with that hash; changes to either wait for the end of the
    transaction."""
    is_same = sa.and_(users.c.id == user_id, users.c.password_hash == proved_hash)
    return sa.select(users.c.id).where(is_same, users.c.disabled_at.is_(None)).with_for_update()


def _live_session(session_id: UUID) -> sa.Select[Any]:
    return (
        sa.select(sessions.c.id, sessions.c.user_id, sessions.c.scopes)
        .join(users)
        .where(sessions.c.id == session_id, sessions.c.ended_at.is_(None), sessions.c.expires_at > _now)
        .where(users.c.disabled_at.is_(None))
    )


def _unused(connection: sa.Connection, session_id: UUID, digests: Sequence[bytes]) -> bytes | None:
    """The one of `digests` that was issued to the session and is unused."""
    of_session = refresh_tokens.c.session_id == session_id
    is_unused = sa.and_(refresh_tokens.c.digest.in_(digests), refresh_tokens.c.used_at.is_(None))
    found: bytes | None = connection.scalar(sa.select(refresh_tokens.c.digest).where(of_session, is_unused))
    return found


def _end(connection: sa.Connection, which: sa.ColumnElement[bool], by: EndedBy) -> Sequence[UUID]:
    is_open = sa.and_(which, sessions.c.ended_at.is_(None))
    ended = sa.update(sessions).where(is_open).values(ended_at=_now, ended_by=by).returning(sessions.c.id)
    return connection.scalars(ended).all()
