"""Alembic's entry: runs the revisions on the connection that core/database.py hands over."""

from alembic import context

from bookclub_platform.core.tables import SCHEMA, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection, target_metadata=metadata, version_table_schema=SCHEMA, transaction_per_migration=True
)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
