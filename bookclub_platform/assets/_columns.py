"""Tables and row types -> the column schemas on asset pages; the meanings come from core/columns.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import dagster as dg
import sqlalchemy as sa

from bookclub_platform.core.columns import MEANINGS

COLUMN_SCHEMA = "dagster/column_schema"


def of_table(table: sa.Table) -> dict[str, dg.TableSchema]:
    """The definition metadata of an asset that is a table, with the database's constraints."""
    rules = [
        _rule(constraint) for constraint in table.constraints if not isinstance(constraint, sa.ForeignKeyConstraint)
    ]
    columns = [
        dg.TableColumn(
            column.name,
            str(column.type),
            MEANINGS.get(column.name),
            dg.TableColumnConstraints(nullable=bool(column.nullable), unique=column.primary_key),
        )
        for column in table.columns
    ]
    return {COLUMN_SCHEMA: dg.TableSchema(columns, dg.TableConstraints(sorted(rule for rule in rules if rule)))}


def of_rows(row: type, **types: str) -> dict[str, dg.TableSchema]:
    """The definition metadata of an asset whose rows have the dataclass or NamedTuple type `row`."""
    names = {
        name: kind.__name__ if isinstance(kind, type) else str(kind).removeprefix("typing.")
        for name, kind in get_type_hints(row).items()
    }
    return of_names(names | types)


def of_names(types: Mapping[str, str]) -> dict[str, dg.TableSchema]:
    """The definition metadata of an asset with these columns: name -> type; "... | None" is nullable."""
    return {COLUMN_SCHEMA: dg.TableSchema([_column(name, kind) for name, kind in types.items()])}


def _column(name: str, kind: str) -> dg.TableColumn:
    plain = kind.removesuffix(" | None")
    return dg.TableColumn(
        name, plain, MEANINGS.get(name), dg.TableColumnConstraints(nullable=plain != kind, unique=False)
    )


def _rule(constraint: Any) -> str:
    if isinstance(constraint, sa.UniqueConstraint):
        return f"unique: {', '.join(column.name for column in constraint.columns)}"
    return str(constraint.sqltext) if isinstance(constraint, sa.CheckConstraint) else ""
