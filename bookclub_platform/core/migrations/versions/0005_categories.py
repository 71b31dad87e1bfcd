"""Which categories each source lists, since when it does not, and which are retired; the outbox of alarms."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "categories",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("first_listed_at", _moment, nullable=False),
        sa.Column("last_listed_at", _moment, nullable=False),
        sa.Column("absences", sa.Integer, nullable=False, server_default="0"),
        sa.Column("absent_since", _moment),
        sa.Column("retired_at", _moment),
        sa.Column("retired_by", sa.Text),
        sa.CheckConstraint("(retired_at IS NULL) = (retired_by IS NULL)", name=op.f("ck_categories_retired")),
        sa.CheckConstraint("retired_by IN ('shop', 'operator')", name=op.f("ck_categories_retired_by")),
        schema="bookclub",
    )
    op.create_table(
        "alarms",
        sa.Column("number", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("id", sa.Text, nullable=False, unique=True),
        sa.Column("message", postgresql.JSONB, nullable=False),
        sa.Column("raised_at", _moment, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_at", _moment, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("delivered_at", _moment),
        schema="bookclub",
    )
    op.create_index(
        "ix_alarms_pending", "alarms", ["number"], schema="bookclub", postgresql_where=sa.text("delivered_at IS NULL")
    )
