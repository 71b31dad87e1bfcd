"""Postgres -> the data version in memory, at most STALE_S old, or marked as not current.

    watch = DataWatch(database_url); watch.start(); watch.version, watch.is_current; watch.stop()
    watch.is_large = True                         from 20,000 books on: then it may be HELD_IF_LARGE_S behind

When a newer version appears, responses do not switch to it at once: until there is a lineup of that version, each list
would need Postgres, which costs ten times as much. They switch as soon as a request `saw` it, and after HELD_S at the
latest; with a large catalogue, whose lineup takes seconds to read, after HELD_IF_LARGE_S.

The watch polls instead of using LISTEN: a connection that was silently dropped looks like one on which nothing happens.
It runs in its own thread: on a busy event loop the query would wait behind the very requests that could have been
answered from memory once the version was confirmed.
"""

from __future__ import annotations

import logging
import threading
import time

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from bookclub_platform.core.tables import select_data_version
from serving.database.postgres import CONNECT_TIMEOUT_S, KEEPALIVE, STATEMENT_TIMEOUT_S, TimedConnection

log = logging.getLogger(__name__)

PAUSE_S = 0.2
STALE_S = 1.0
SILENT_S = 1.5
TRIED_EVERY_S = 1.0
HELD_S = STALE_S - 2 * PAUSE_S  # the next poll comes a pause later, and may be delayed
HELD_IF_LARGE_S = 20.0  # while books change all the time, there is a new lineup every ten seconds (ChampionKeeper)

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_DATA_VERSION = str(select_data_version().compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}))


class DataWatch:
    """Attributes:
    version: the data version to answer with; None before the first poll.
    newest: the newest version that this process has seen.
    outages: how often Postgres came back. After each time it may be a restored database that reuses version numbers.
    is_large: whether there are so many books that a lineup takes seconds to read.
    """

    def __init__(self, database_url: str) -> None:
        plain = sa.make_url(database_url).set(drivername="postgresql")
        self._address = plain.render_as_string(hide_password=False)
        self._confirmed_at = -STALE_S
        self._current_until = float("-inf")
        self._is_away = False
        self._asked_at: float | None = None
        self._heard_at = self._tried_at = float("-inf")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="data-version", daemon=True)
        self._lock = threading.Lock()
        self.version: str | None = None
        self.newest: str | None = None
        self.outages = 0
        self.is_large = False

    @property
    def is_current(self) -> bool:
        """Whether Postgres confirmed `version`, or a newer one that is held back, within the last STALE_S seconds."""
        return time.monotonic() < self._current_until

    def heard(self) -> None:
        """Postgres answered a request's query."""
        self._heard_at = time.monotonic()

    def tried(self) -> None:
        """Postgres did not answer a request's query."""
        self._tried_at = time.monotonic()

    def is_to_be_spared(self) -> bool:
        """Whether Postgres answers nothing: our poll, and all requests, have had no reply for SILENT_S seconds. It is
        better to fail at once than to wait, too. One request every TRIED_EVERY_S seconds still tries, because it may be
        only our own connection that hangs.
        """
        asked_at, now = self._asked_at, time.monotonic()
        if asked_at is None or now - max(asked_at, self._heard_at) < SILENT_S:
            return False
        if now - self._tried_at < TRIED_EVERY_S:
            return True
        self._tried_at = now
        return False

    def saw(self, version: str, asked_at: float | None = None) -> None:
        """A response was read from that version, so no client may get an older one afterwards. Exception: with a large
        catalogue, one search would then make all lists use Postgres for seconds, so the version is held back.

        `asked_at`: when it was the newest, in `time.monotonic()` seconds, if there is a lineup of it.
        """
        with self._lock:
            if self.version is None or int(version) > int(self.version):
                self.newest = max(version, self.newest or version, key=int)
                if asked_at is None and self.version is not None and self.is_large:
                    return
                self.version = version
                if asked_at is not None and not self._is_away:
                    self._confirm(max(self._confirmed_at, asked_at))

    def start(self) -> None:
        """Poll until `stop`."""
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._asked_at = self._asked_at or time.monotonic()
                self._watch()
            except psycopg.Error as error:
                if not isinstance(error, psycopg.errors.ConnectionTimeout):
                    self._asked_at = None  # it refuses at once, and so it will for requests
                if not self._is_away:
                    log.warning("The data version is not known: %s", str(error).strip() or type(error).__name__)
                self._is_away = True
                self._ended.wait(PAUSE_S)

    def _watch(self) -> None:
        """Poll over one connection until it fails or the watch stops."""
        options = f"-c statement_timeout={STATEMENT_TIMEOUT_S}s -c default_transaction_read_only=on"
        with TimedConnection.connect(
            self._address, autocommit=True, options=options, connect_timeout=CONNECT_TIMEOUT_S, **KEEPALIVE
        ) as connection:
            while not self._ended.is_set():
                asked_at, before = time.monotonic(), self.newest
                self._asked_at = self._asked_at or asked_at
                row = connection.execute(_DATA_VERSION).fetchone()
                self._asked_at = None
                assert row is not None
                self._found(str(row[0]), before, asked_at)
                self._ended.wait(PAUSE_S)

    def _found(self, version: str, before: str | None, asked_at: float) -> None:
        with self._lock:
            # Accept a lower version only if nothing newer was seen meanwhile: then it is another database.
            if self.newest is None or self.newest == before or int(version) > int(self.newest):
                self.newest = version
            is_later = self.version is not None and int(self.newest) > int(self.version)
            held_s = HELD_IF_LARGE_S if self.is_large else HELD_S
            if is_later and not self._is_away and asked_at - self._confirmed_at < held_s:
                self._stands(min(asked_at, self._confirmed_at + held_s - HELD_S))
                return
            self.version = self.newest
            self.outages += self._is_away
            self._is_away = False
            self._confirm(asked_at)

    def _confirm(self, asked_at: float) -> None:
        self._confirmed_at = asked_at
        self._stands(asked_at)

    def _stands(self, asked_at: float) -> None:
        self._current_until = max(self._current_until, asked_at + STALE_S)
