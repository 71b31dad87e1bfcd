"""Name and password -> tokens; also refresh, logout, change of password, deletion of the account.

Guessing reveals nothing: an unknown name, a wrong password and a disabled account get the same response, after the same
work. Access tokens are valid for ten minutes; every worker sees within LIVE_FOR_S that one was revoked.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from bookclub_platform.core import accounts, audit, passwords
from bookclub_platform.core.errors import DatabaseUnavailable
from serving.access import policies
from serving.access.quotas import SharedQuotas
from serving.access.rate_limit import quota_exceeded
from serving.access.registrations import Registrations
from serving.access.tokens import Claims, Tokens
from serving.access.tries import Tries, WrongPassword
from serving.database.datawatch import DataWatch
from serving.database.postgres import ANSWER_TIMEOUT_S, be_patient, connected, open_engine
from serving.http import problems

POOL_SIZE = 3
SESSION_LASTS = timedelta(days=30)
REPEATED_WITHIN = timedelta(seconds=60)  # a response may be lost, and two tabs may refresh at once
LIVE_FOR_S = 5.0  # how long the database's answer about a session is cached
_MOST_REMEMBERED = 50_000
_FORGET_WITHIN_S = 60.0  # to delete an account with its feedback: a million events take seconds
_AT_ONCE = 2  # hashes, 19 MB each
_LONGEST_QUEUE = 40  # half a second of hashing

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a caller gets after proving their identity."""

    access_token: str
    refresh_token: str
    scopes: Sequence[str]


@dataclass(frozen=True, slots=True)
class Facts:
    """What an account may see about itself; `sessions`: how many are open."""

    username: str
    scopes: Sequence[str]
    created_at: datetime
    sessions: int


class EndedSession(problems.Problem):
    """The session of an access token has ended, or its account was deleted."""

    def __init__(self, detail: str | None = None) -> None:
        super().__init__("ended-session", detail, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


class Accounts:
    """The accounts in one database; connects on first use."""

    def __init__(
        self,
        database_url: str,
        watch: DataWatch,
        tokens: Tokens,
        quotas: SharedQuotas,
        logins_per_minute: int,
        registrations_per_hour: int,
        is_login_required: bool,
        is_registration_open: bool,
    ) -> None:
        self._watch = watch
        self._engine = open_engine(database_url, POOL_SIZE, "READ COMMITTED", is_read_only=False)
        self._quotas = quotas
        self._tokens, self._tries = tokens, Tries(quotas, logins_per_minute)
        self._registrations = Registrations(quotas, registrations_per_hour)
        self.is_login_required, self.is_registration_open = is_login_required, is_registration_open
        self._hashing = _Hashing()
        self._live: dict[UUID, tuple[float, bool]] = {}

    @property
    def keys_fault(self) -> str | None:
        """See `Tokens.keys_fault`."""
        return self._tokens.keys_fault

    async def register(
        self, username: str, password: str, address: str, scopes: Sequence[str] = accounts.FOR_ANYONE
    ) -> Grant:
        """Create an account that may read, export and give feedback, and open a session with `scopes` of these.

        Raises:
            Problem: 403 if registration is closed or the password easy to guess, 409 if the name is taken, 429 if too
                many accounts were created from this address.
        """
        if not self.is_registration_open:
            raise problems.Problem("registration-closed")
        with self._registrations.one(address):
            await self._refuse_weak(username, password)
            kept = await self._hashing.run(passwords.hash_password, password)
            async with self._transaction() as connection:
                user_id = await connection.run_sync(accounts.add_user, username, kept, accounts.FOR_ANYONE)
                grant = user_id and await self._open_session(connection, user_id, scopes, kept)
            if not grant:
                audit.note("register", "refused", address=address, why="taken")
                raise problems.Problem("name-taken")
        audit.note("register", "done", address=address, user_id=user_id, username=username)
        return grant

    async def login(self, username: str, password: str, wanted: Sequence[str], address: str) -> Grant:
        """Open a session with those scopes of `wanted` that the account has, or with all its scopes if none is wanted.

        Raises:
            Problem: 401 if name and password do not match, 429 after too many wrong passwords.
        """
        user = await self._proved(username, password, "login", address)
        scopes = [scope for scope in user.scopes if scope in wanted] if wanted else list(user.scopes)
        if not scopes:
            audit.note("login", "refused", address=address, user_id=user.id, why="scope")
            detail = f"The account has none of the scopes {' '.join(wanted)}, only {', '.join(user.scopes)}."
            raise problems.Problem("invalid-scope", detail)
        fresh = await self._renewed_hash(user, password)
        async with self._transaction() as connection:
            grant = await self._open_session(connection, user.id, scopes, user.password_hash)
            if grant is not None and fresh is not None:
                await connection.run_sync(accounts.set_password_hash, user.id, fresh)
        if grant is None:  # disabled, or its password changed, since the password was checked
            raise WrongPassword(is_login=True)
        audit.note("login", "done", address=address, user_id=user.id, scopes=scopes)
        return grant

    def cookie_of(self, grant: Grant) -> str:
        """The session as the value of a browser's cookie."""
        return self._tokens.issue_for_web(self._tokens.read(grant.access_token))

    async def refresh(self, refresh_token: str, address: str) -> Grant:
        """The next pair of tokens of a session. A refresh token that is sent a second time gets the same new refresh
        token again, while that is unused and REPEATED_WITHIN has not passed; otherwise the session ends.

        Raises:
            Problem: 401 if the token is not valid, or no longer; 429 after too many refreshes of one session.
        """
        following = {_digest(token): token for token in self._tokens.after(refresh_token)}
        async with self._transaction() as connection:
            renewal = await connection.run_sync(
                accounts.renew, _digest(refresh_token), list(following), REPEATED_WITHIN
            )
            if renewal.outcome == "renewed":
                standing = self._quotas.take(policies.of_refreshes(), str(renewal.session_id))
                if standing.is_over:
                    raise quota_exceeded(standing)  # rolls the transaction back: the token stays valid
        if renewal.session_id is None or renewal.user_id is None or renewal.following is None:
            if renewal.session_id is not None:
                self._live.pop(renewal.session_id, None)
            audit.note("refresh", "refused", address=address, user_id=renewal.user_id, why=renewal.outcome)
            raise problems.Problem("refresh-refused", headers={"WWW-Authenticate": 'Bearer error="invalid_token"'})
        if renewal.outcome == "repeated":
            audit.note("refresh", "done", address=address, user_id=renewal.user_id, why=renewal.outcome)
        access = self._tokens.issue(renewal.user_id, renewal.session_id, renewal.scopes)
        return Grant(access, following[renewal.following], renewal.scopes)

    async def logout(self, claims: Claims, address: str) -> None:
        """End the session of the token."""
        async with self._transaction() as connection:
            await connection.run_sync(accounts.end_session, claims.session_id, "logout")
        self._live.pop(claims.session_id, None)
        audit.note("logout", "done", address=address, user_id=claims.user_id)

    async def logout_by(self, refresh_token: str, address: str) -> None:
        """End the session of the refresh token. An invalid token has no session, and needs no logout."""
        async with self._transaction() as connection:
            ended = await connection.run_sync(accounts.end_session_of, _digest(refresh_token))
        if ended is not None:
            user_id, session_id = ended
            self._live.pop(session_id, None)
            audit.note("logout", "done", address=address, user_id=user_id)

    async def change_password(self, claims: Claims, old: str, new: str, address: str) -> None:
        """Change the password, and end every session of the account.

        Raises:
            Problem: 403 if `old` is wrong, or `new` is the same or easy to guess; 401 if the session ended meanwhile;
                429 after too many attempts.
        """
        await self._change_password(claims, old, new, address)

    async def change_password_and_log_in(self, claims: Claims, old: str, new: str, address: str) -> Grant:
        """Like `change_password`, then open a new session for the caller.

        Raises:
            Problem: as `change_password` does.
        """
        kept = await self._change_password(claims, old, new, address)
        async with self._transaction() as connection:
            grant = await self._open_session(connection, claims.user_id, sorted(claims.scopes), kept)
        if grant is None:
            raise EndedSession
        return grant

    async def username(self, claims: Claims) -> str:
        """The name of the token's account.

        Raises:
            Problem: 401, the account was deleted.
        """
        async with connected(self._engine, self._watch, "The account") as connection:
            user = await connection.run_sync(accounts.find_user_by_id, claims.user_id)
        if user is None:
            raise EndedSession
        return user.username

    async def facts(self, claims: Claims) -> Facts:
        """What is stored about the token's account.

        Raises:
            Problem: 401, the account was deleted.
        """
        async with connected(self._engine, self._watch, "The account") as connection:
            user = await connection.run_sync(accounts.find_user_by_id, claims.user_id)
            count = await connection.run_sync(accounts.open_sessions, claims.user_id)
        if user is None:
            raise EndedSession
        return Facts(user.username, user.scopes, user.created_at, count)

    async def delete(self, claims: Claims, password: str, address: str) -> None:
        """Delete the account, with its sessions and its feedback.

        Raises:
            Problem: 403 if the password is wrong, 401 if the session ended meanwhile, 409 if it is the only
                administrator, 429 after too many attempts.
        """
        user = await self._proved(await self.username(claims), password, "delete-account", address)
        async with self._transaction(_FORGET_WITHIN_S) as connection:
            outcome = await connection.run_sync(accounts.delete_user, user.id, user.password_hash)
        if outcome == "replaced":
            raise EndedSession
        if outcome == "last":
            audit.note("delete-account", "refused", address=address, user_id=user.id, why="last administrator")
            raise problems.Problem("last-administrator")
        self._live.pop(claims.session_id, None)
        audit.note("delete-account", "done", address=address, user_id=user.id)

    async def is_live(self, claims: Claims, is_strict: bool) -> bool:
        """Whether the session of a token is still open. While the database is unavailable, a token counts until it
        expires, unless `is_strict`: reads continue from memory, other actions do not.

        Raises:
            DatabaseUnavailable: only if `is_strict`.
        """
        asked_at, is_live = self._live.get(claims.session_id, (-LIVE_FOR_S, True))
        if time.monotonic() - asked_at < LIVE_FOR_S and not is_strict:
            return is_live
        try:
            async with connected(self._engine, self._watch, "The account") as connection:
                is_live = await connection.run_sync(accounts.is_live, claims.session_id)
        except DatabaseUnavailable:
            if is_strict:
                raise
        if len(self._live) >= _MOST_REMEMBERED:
            self._live.clear()
        self._live[claims.session_id] = time.monotonic(), is_live
        return is_live

    async def close(self) -> None:
        self._hashing.close()
        await self._engine.dispose()

    async def _change_password(self, claims: Claims, old: str, new: str, address: str) -> str:
        """Change the password; returns the new hash."""
        user = await self._proved(await self.username(claims), old, "change-password", address)
        if passwords.is_same(old, new):
            raise problems.Problem("weak-password", "The new password is the same as the old one. Choose another.")
        await self._refuse_weak(user.username, new)
        kept = await self._hashing.run(passwords.hash_password, new)
        async with self._transaction() as connection:
            ended = await connection.run_sync(accounts.change_password, user.id, kept, user.password_hash)
            if ended is None:
                raise EndedSession  # somebody else changed the password since it was checked
        for session_id in ended:
            self._live.pop(session_id, None)
        audit.note("change-password", "done", address=address, user_id=user.id)
        return kept

    async def _proved(self, username: str, password: str, act: str, address: str) -> accounts.User:
        try:
            with self._tries.one(username, address):
                return await self._looked_at(username, password, act, address)
        except problems.Problem as problem:
            if problem.status == 429:
                audit.note(act, "refused", address=address, why="too many wrong")
            raise

    async def _looked_at(self, username: str, password: str, act: str, address: str) -> accounts.User:
        async with connected(self._engine, self._watch, "The account") as connection:
            user = await connection.run_sync(accounts.find_user, username)
        is_right = await self._hashing.run(passwords.is_password, password, user.password_hash if user else None)
        if user is None or not is_right or user.disabled_at is not None:
            why = "unknown name" if user is None else "disabled" if is_right else "wrong password"
            audit.note(act, "refused", address=address, user_id=user.id if user else None, why=why)
            raise WrongPassword(is_login=act == "login")
        return user

    async def _renewed_hash(self, user: accounts.User, password: str) -> str | None:
        if not passwords.is_outdated(user.password_hash):
            return None
        return await self._hashing.run(passwords.hash_password, password)

    async def _refuse_weak(self, username: str, password: str) -> None:
        if (why := await self._hashing.run(passwords.weakness, username, password)) is not None:
            raise problems.Problem("weak-password", f"The password {why} Choose another.")

    async def _open_session(
        self, connection: AsyncConnection, user_id: int, scopes: Sequence[str], password_hash: str
    ) -> Grant | None:
        refresh_token = secrets.token_urlsafe(32)
        session_id = await connection.run_sync(
            accounts.open_session, user_id, password_hash, scopes, _digest(refresh_token), SESSION_LASTS
        )
        if session_id is None:
            return None
        return Grant(self._tokens.issue(user_id, session_id, scopes), refresh_token, scopes)

    @asynccontextmanager
    async def _transaction(self, within_s: float = ANSWER_TIMEOUT_S) -> AsyncIterator[AsyncConnection]:
        async with connected(self._engine, self._watch, "The account", within_s) as connection, connection.begin():
            if within_s > ANSWER_TIMEOUT_S:
                await connection.execute(be_patient(within_s))
            yield connection


class _Hashing:
    """argon2 off the event loop, a few at a time: a flood of logins is queued, then refused, and uses no memory."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="argon2")
        self._under_way = 0

    async def run(self, work: Callable[_P, _T], *arguments: _P.args, **named: _P.kwargs) -> _T:
        if self._under_way >= _AT_ONCE + _LONGEST_QUEUE:
            raise problems.Problem("busy", headers={"Retry-After": "1"})
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*arguments, **named))
        finally:
            self._under_way -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _digest(refresh_token: str) -> bytes:
    return hashlib.sha256(refresh_token.encode("utf-8", "replace")).digest()
