"""Pages in other orders than that of the id need an index for each; what readers did with recommendations is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

SCHEMA = "bookclub"
ORDERS = {
    "price": "price",
    "rating": "coalesce(rating, 6)",
    "rating_down": "coalesce(rating, 0)",
    "title": 'left(lower(title) COLLATE "C", 100)',
    "first_seen": "first_seen_at",
}
_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Of listed books alone, and of nothing that a mere sighting writes: a load that changes nothing writes no index.
    for name, key in ORDERS.items():
        order = [sa.text(f"({key})"), sa.text("id")]
        where = sa.text("delisted_at IS NULL")
        op.create_index(f"ix_books_by_{name}", "books", order, schema=SCHEMA, postgresql_where=where)
    op.create_table(
        "feedback",
        sa.Column("user_id", sa.BigInteger, sa.ForeignKey("bookclub.users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("data_version", sa.BigInteger, nullable=False),
        sa.Column("book_id", sa.BigInteger, sa.ForeignKey("bookclub.books.id"), nullable=False),
        sa.Column("for_book_id", sa.BigInteger, sa.ForeignKey("bookclub.books.id")),
        sa.Column("position", sa.SmallInteger),
        sa.Column("happened_at", _moment, nullable=False),
        sa.Column("received_at", _moment, nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint("kind IN ('shown', 'clicked', 'liked', 'swapped')", name="ck_feedback_kind"),
        sa.CheckConstraint("position BETWEEN 1 AND 100", name="ck_feedback_position"),
        schema=SCHEMA,
    )
    op.create_index("ix_feedback_happened_at", "feedback", ["happened_at"], schema=SCHEMA)
