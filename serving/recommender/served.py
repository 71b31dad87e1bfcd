"""A model version that is about to be used -> `bookclub.served_models`, where its feedback is checked.

    served = Served(database_url); served.note(version); served.versions

For threads, one at a time. While Postgres is down the version is used all the same, and recorded later.
"""

from __future__ import annotations

import logging

import sqlalchemy as sa

from bookclub_platform.core.served_models import NameAndVersion, note_served
from bookclub_platform.models import ModelVersion
from serving.database.postgres import STATEMENT_TIMEOUT_S, open_sync_engine

log = logging.getLogger(__name__)


class Served:
    """The model versions that have been used in this process.

    Attributes:
        versions: (name, version) of each, whether recorded in Postgres yet or not.
    """

    def __init__(self, database_url: str) -> None:
        # Used once per model: a connection kept open for that would take one of Postgres' hundred.
        self._engine = open_sync_engine(
            database_url, is_read_only=False, timeout_s=STATEMENT_TIMEOUT_S, poolclass=sa.NullPool
        )
        self._noted: frozenset[NameAndVersion] = frozenset()
        self.versions: frozenset[NameAndVersion] = frozenset()
        self._is_late = False

    def note(self, version: ModelVersion) -> None:
        """Record `version`, and any that could not be recorded before. Does not raise: a fault is logged."""
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
