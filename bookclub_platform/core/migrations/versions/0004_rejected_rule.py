"""The rule that a rejected page broke; the rules of core/book.py as constraints, under their names."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# Until now the reason began with the field: of these cleaning spoke, of all others the parsers.
RULES = {"title": "title_given", "price": "price_readable", "key": "key_unique"}

_RANGES = {"price": "0 AND 99999999.99", "rating": "1 AND 5", "stock": "0 AND 2147483647"}
_HISTORY = {f"{name}_range": f"{name} BETWEEN {limits}" for name, limits in _RANGES.items()}
_TEXTS = ["source", "source_id", "title", "category", "category_name", "url"]
CHECKS = {
    "books": {
        **{f"{name}_given": rf"btrim({name}, E' \t\n\r\f\v') <> ''" for name in _TEXTS},
        **_HISTORY,
        "currency_form": "currency ~ '^[A-Z]{3}$'",
        "num_reviews_range": "num_reviews BETWEEN 0 AND 2147483647",
    },
    "book_observations": _HISTORY,
}
REPLACED = ["rating", "price", "stock", "num_reviews", "title", "category", "key"]
# The naming convention had put the table's name before names that began with it already.
SINGLE_PREFIX = """
DO $$
DECLARE held record;
BEGIN
    FOR held IN
        SELECT conrelid::regclass AS place, conname AS name, relname AS relation
        FROM pg_constraint JOIN pg_class ON pg_class.oid = conrelid
        WHERE contype = 'c' AND relnamespace = 'bookclub'::regnamespace
            AND starts_with(conname, format('ck_%s_ck_%s_', relname, relname))
    LOOP
        EXECUTE format('ALTER TABLE %s RENAME CONSTRAINT %I TO %I',
            held.place, held.name, substr(held.name, length(held.relation) + 5));
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.add_column("rejected_books", sa.Column("rule", sa.Text), schema="bookclub")
    known = " ".join(f"WHEN '{field}' THEN '{rule}'" for field, rule in RULES.items())
    op.execute(
        f"UPDATE bookclub.rejected_books SET rule = CASE split_part(reason, ':', 1) {known} ELSE 'page_readable' END"  # noqa: S608
    )
    op.alter_column("rejected_books", "rule", nullable=False, schema="bookclub")
    op.execute(SINGLE_PREFIX)
    for table, checks in CHECKS.items():
        changes = [f"DROP CONSTRAINT IF EXISTS ck_{table}_{name}" for name in REPLACED]
        changes += [f"ADD CONSTRAINT ck_{table}_{name} CHECK ({condition})" for name, condition in checks.items()]
        op.execute(f"ALTER TABLE bookclub.{table} {', '.join(changes)}")
