"""Which models have answered is kept: feedback on a recommendation of any other cannot be true."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_table(
        "served_models",
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("version", sa.Text, primary_key=True),
        sa.Column("served_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        schema="bookclub",
    )
    # Late feedback on what was replaced before this release must find it; more than this is not known of it.
    op.execute(
        "INSERT INTO bookclub.served_models SELECT model, model_version, min(received_at) FROM bookclub.feedback "
        "GROUP BY model, model_version"
    )
