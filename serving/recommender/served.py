"""A version of a model that is about to answer -> `bookclub.served_models`, where feedback on it looks.

    served = Served(database_url); served.note(version); served.versions

For threads, one at a time. While Postgres is away the version answers all the same, and is noted later.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa

from bookclub_platform.core.served_models import NameAndVersion, note_served
from bookclub_platform.models import ModelVersion
from serving.database.postgres import STATEMENT_TIMEOUT_S, open_sync_engine

log = logging.getLogger(__name__)


class Served:
    """What has answered in this process.

    Attributes:
        versions: (name, version) of each, noted in Postgres or not yet.
    """

    def __init__(self, database_url: str) -> None:
        # Asked once for each model: a connection kept for that would be one of Postgres' hundred.
        self._engine = open_sync_engine(
            database_url, is_read_only=False, timeout_s=STATEMENT_TIMEOUT_S, poolclass=sa.NullPool
        )
        self._noted: frozenset[NameAndVersion] = frozenset()
        self.versions: frozenset[NameAndVersion] = frozenset()
        self._is_late = False

    def note(self, version: ModelVersion) -> None:
        """Keep that `version` answers, and what could not be kept before. Does not raise: a fault is logged."""
        self.versions |= {(version.name, version.version)}
        if not (lacking := self.versions - self._noted):
            return
        try:
            with self._engine.begin() as connection:
                note_served(connection, lacking)
        except sa.exc.DBAPIError as error:
            if not self._is_late:
                log.warning("That %s version %s answers is noted later: %s", version.name, version.version, error.orig)
            self._is_late = True
            return
        self._noted, self._is_late = self._noted | lacking, False
