"""What must hold is held by the database; the history is a view; a book may stand in several categories."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = "bookclub"
CHECKS = {
    "books": {
        "num_reviews": "num_reviews >= 0",
        "title": "btrim(title) <> ''",
        "category": "category <> ''",
        "key": "source <> '' AND source_id <> ''",
        "seen": "first_seen_at <= last_seen_at",
    },
    "book_observations": {
        "rating": "rating BETWEEN 1 AND 5",
        "price": "price >= 0",
        "stock": "stock >= 0",
    },
    "loads": {
        "counts": "inserted >= 0 AND updated >= 0 AND delisted >= 0",
        "change": "inserted + updated + delisted > 0",
    },
}
# Every window goes over one book, so a question about one book reads that book's rows alone.
HISTORY = """
CREATE VIEW bookclub.book_history AS
WITH compared AS (
    SELECT *,
        lag(price) OVER sightings AS previous_price,
        lag(rating) OVER sightings AS previous_rating,
        lag(stock) OVER sightings AS previous_stock,
        (price, rating, stock) IS DISTINCT FROM
            (lag(price) OVER sightings, lag(rating) OVER sightings, lag(stock) OVER sightings) AS is_change
    FROM bookclub.book_observations
    WINDOW sightings AS (PARTITION BY book_id ORDER BY seen_at, crawl_id)
), numbered AS (
    SELECT *, count(*) FILTER (WHERE is_change) OVER (PARTITION BY book_id ORDER BY seen_at, crawl_id) AS state
    FROM compared
), bounded AS (
    SELECT *, min(seen_at) FILTER (WHERE is_change) OVER (
        PARTITION BY book_id ORDER BY state RANGE BETWEEN 1 FOLLOWING AND 1 FOLLOWING
    ) AS held_until, min(seen_at) OVER (PARTITION BY book_id, state) AS held_from
    FROM numbered
)
SELECT book_id, crawl_id, seen_at, price, rating, stock, previous_price, previous_rating, previous_stock,
    is_change, held_from, held_until
FROM bounded
"""


def upgrade() -> None:
    for name in ("rating", "price", "stock"):  # revision 0001 wrote the prefix, and the naming convention once more
        op.execute(f"ALTER TABLE bookclub.books RENAME CONSTRAINT ck_books_ck_books_{name} TO ck_books_{name}")
    for table, checks in CHECKS.items():
        for name, condition in checks.items():
            op.create_check_constraint(op.f(f"ck_{table}_{name}"), table, condition, schema=SCHEMA)
    op.create_table(
        "book_categories",
        sa.Column("category", sa.Text, primary_key=True),
        sa.Column("book_id", sa.BigInteger, sa.ForeignKey("bookclub.books.id"), primary_key=True),
        sa.Column("category_name", sa.Text, nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("category <> ''", name=op.f("ck_book_categories_category")),
        schema=SCHEMA,
    )
    op.execute(HISTORY)
    # A load writes last_seen_at of each row that it saw: with room beside it the new row takes the old one's place in
    # the page and in the indexes (HOT), and the table does not grow by being loaded again.
    op.execute("ALTER TABLE bookclub.books SET (fillfactor = 50)")
