"""Which versions of models have answered here -> table `bookclub.served_models`, and what feedback on them can be true.

    with engine.begin() as connection:
        note_served(connection, {("tfidf_model", "3")})
        never_served(connection, {("tfidf_model", "9")})    {("tfidf_model", "9")}

A server notes a version before it answers with it. None is ever taken out: what was rolled back, or replaced long ago,
was given out all the same, and those who tell of it are often late.
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
    """Keep that these have answered; of those known before the first time stays."""
    rows = [{"model": model, "version": version} for model, version in served]
    connection.execute(insert(served_models).on_conflict_do_nothing(), rows)


def never_served(connection: sa.Connection, asked: Collection[NameAndVersion]) -> set[NameAndVersion]:
    """Those of `asked` that no server has noted."""
    if not asked:
        return set()
    named = sa.tuple_(served_models.c.model, served_models.c.version)
    known = connection.execute(sa.select(served_models.c.model, served_models.c.version).where(named.in_(asked)))
    return set(asked) - {(row.model, row.version) for row in known}
