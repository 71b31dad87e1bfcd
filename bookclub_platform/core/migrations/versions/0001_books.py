"""The four tables that a first crawl needs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "books",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_id", sa.Text, nullable=False),
        sa.Column("upc", sa.Text),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("category_name", sa.Text, nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.Column("currency", sa.CHAR(3), nullable=False),
        sa.Column("rating", sa.SmallInteger),
        sa.Column("stock", sa.Integer),
        sa.Column("in_stock", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("num_reviews", sa.Integer),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("image_url", sa.Text),
        sa.Column("first_seen_at", _moment, nullable=False),
        sa.Column("last_seen_at", _moment, nullable=False),
        sa.Column("updated_at", _moment, nullable=False),
        sa.Column("delisted_at", _moment),
        sa.UniqueConstraint("source", "source_id", name="uq_books_source_source_id"),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name="ck_books_rating"),
        sa.CheckConstraint("price >= 0", name="ck_books_price"),
        sa.CheckConstraint("stock >= 0", name="ck_books_stock"),
        schema="bookclub",
    )
    op.create_index("ix_books_category_id", "books", ["category", "id"], schema="bookclub")
    op.create_table(
        "book_observations",
        sa.Column("book_id", sa.BigInteger, sa.ForeignKey("bookclub.books.id"), primary_key=True),
        sa.Column("crawl_id", sa.Text, primary_key=True),
        sa.Column("seen_at", _moment, nullable=False),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.Column("rating", sa.SmallInteger),
        sa.Column("stock", sa.Integer),
        schema="bookclub",
    )
    op.create_table(
        "rejected_books",
        sa.Column("source", sa.Text, primary_key=True),
        sa.Column("crawl_id", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, primary_key=True),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("seen_at", _moment, nullable=False),
        schema="bookclub",
    )
    op.create_table(
        "loads",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("category", sa.Text, nullable=False),
        sa.Column("crawl_id", sa.Text, nullable=False),
        sa.Column("loaded_at", _moment, nullable=False, server_default=sa.func.now()),
        sa.Column("inserted", sa.Integer, nullable=False),
        sa.Column("updated", sa.Integer, nullable=False),
        sa.Column("delisted", sa.Integer, nullable=False),
        schema="bookclub",
    )
