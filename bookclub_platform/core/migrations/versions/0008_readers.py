"""A shop's account tells for many readers: which of them did it is kept beside the event, as a hash."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("feedback", sa.Column("reader", sa.LargeBinary), schema="bookclub")
