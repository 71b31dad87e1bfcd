"""Accounts: users, their sessions, and the refresh tokens of each session."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("username", sa.Text, nullable=False, unique=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("created_at", _moment, nullable=False, server_default=sa.func.now()),
        sa.Column("disabled_at", _moment),
        sa.CheckConstraint("username = lower(username)", name="ck_users_username"),
        schema="bookclub",
    )
    op.create_table(
        "sessions",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("bookclub.users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text), nullable=False),
        sa.Column("started_at", _moment, nullable=False, server_default=sa.func.now()),
        sa.Column("expires_at", _moment, nullable=False),
        sa.Column("ended_at", _moment),
        sa.Column("ended_by", sa.Text),
        schema="bookclub",
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"], schema="bookclub")
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("session_id", sa.Uuid, sa.ForeignKey("bookclub.sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("issued_at", _moment, nullable=False, server_default=sa.func.now()),
        sa.Column("used_at", _moment),
        schema="bookclub",
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"], schema="bookclub")
