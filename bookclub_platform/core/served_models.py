"""Model versions that have been served here -> table `bookclub.served_models` -> which feedback can be true.

    with engine.begin() as connection:
        note_served(connection, {("tfidf_model", "3")})
        never_served(connection, {("tfidf_model", "9")})    {("tfidf_model", "9")}

A server records a version before it uses it for responses. No version is ever removed: one that was rolled back, or
replaced long ago, was served all the same, and feedback on it often arrives late.
"""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bookclub_platform.core.tables import metadata

NameAndVersion = tuple[str, str]

served_models = sa.Table(
    "served_models",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("served_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)


def note_served(connection: sa.Connection, served: Collection[NameAndVersion]) -> None:
    """Record that these have been served; for known ones, the first time stays."""
    rows = [{"model": model, "version": version} for model, version in served]
    connection.execute(insert(served_models).on_conflict_do_nothing(), rows)


def never_served(connection: sa.Connection, asked: Collection[NameAndVersion]) -> set[NameAndVersion]:
    """Those of `asked` that no server has recorded."""
    if not asked:
        return set()
    named = sa.tuple_(served_models.c.model, served_models.c.version)
    known = connection.execute(sa.select(served_models.c.model, served_models.c.version).where(named.in_(asked)))
    return set(asked) - {(row.model, row.version) for row in known}
