"""Dagster's run, event and schedule storage: dagster-postgres on the platform's Postgres, named in dagster.yaml.

`storage.postgres` takes its address from an environment variable without a default, so a plain `dagster dev` in a
fresh clone could not start. This is the same storage with the address from our settings: BOOKCLUB_DATABASE_URL's
server, else the embedded one. It also names the driver that dagster-postgres needs (dagster-io/dagster#33958), and
keeps connections open: a run of 50 partitions asks 2,000 times, and a connection costs more than the question. And it
tells an event again when the connection is lost meanwhile: without that, a Postgres that is started again fails each
run that is just saying something, in whatever step (2 of 10 kills during a crawl did).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from dagster import EventLogEntry
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.utils import DagsterPostgresException

from bookclub_platform.core.settings import load_settings
from bookclub_platform.local.database import open_databases

# To connect, dagster-postgres itself tries for some six seconds each time.
PAUSES_S = (0.5, 1.0, 2.0, 4.0)


class BookclubStorage(DagsterPostgresStorage):
    """DagsterPostgresStorage without configuration."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 - there is none
    ) -> BookclubStorage:
        url = open_databases(load_settings()).dagster
        storage = cls(url, inst_data=inst_data)
        storage._event_log_storage = _EventLog(url)
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            # One stays open per part; the ping before use survives a restart of Postgres.
            part._engine = sa.create_engine(  # type: ignore[union-attr]
                url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True, pool_recycle=3600
            )
            _ping_on_the_webserver_too(part)
        return storage


def _ping_on_the_webserver_too(part: Any) -> None:
    """The webserver has each part make its engine anew, without the ping: after a restart of Postgres the next launch
    by a person then ended with an error, and left a run that nobody ever starts."""
    optimize = part.optimize_for_webserver

    def optimize_and_ping(*arguments: Any, **named: Any) -> None:
        optimize(*arguments, **named)
        part._engine.pool._pre_ping = True

    part.optimize_for_webserver = optimize_and_ping


class _EventLog(PostgresEventLogStorage):
    """An event that came through just before the connection broke is there twice; none is missing."""

    def store_event(self, event: EventLogEntry) -> None:
        _until_told(lambda: super(_EventLog, self).store_event(event))

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        _until_told(lambda: super(_EventLog, self).store_event_batch(events))


def _until_told(tell: Callable[[], None]) -> None:
    for pause_s in PAUSES_S:
        try:
            return tell()
        except (sa.exc.OperationalError, sa.exc.InterfaceError, DagsterPostgresException):
            time.sleep(pause_s)
    return tell()
