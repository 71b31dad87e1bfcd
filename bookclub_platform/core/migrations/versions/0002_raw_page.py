"""Where the page of a rejected book lies: null for those that were rejected before this was kept."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("rejected_books", sa.Column("raw_page", sa.Text), schema="bookclub")
