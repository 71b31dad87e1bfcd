"""Dagster's run, event and schedule storage: dagster-postgres on the platform's Postgres, named in dagster.yaml.

`storage.postgres` takes its address from an environment variable without a default, so a plain `dagster dev` in a
fresh clone could not start. This is the same storage with the address from our settings: BOOKCLUB_DATABASE_URL's
server, else the embedded one. It also names the driver that dagster-postgres needs (dagster-io/dagster#33958), and
keeps connections open: a run of 50 partitions asks 2,000 times, and a connection costs more than the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from bookclub_platform.core.settings import load_settings
from bookclub_platform.local.database import open_databases


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
        for part in (storage.run_storage, storage.event_log_storage, storage.schedule_storage):
            # One stays open per part; the ping before use survives a restart of Postgres.
            part._engine = sa.create_engine(  # type: ignore[union-attr]
                url, isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=20, pool_pre_ping=True, pool_recycle=3600
            )
        return storage
