"""A file of export.py -> the table that it came from, including ids: the way from one database to another.

    with sa.create_engine(url).begin() as connection:
        ingest(connection, Path("books.parquet"))

Reads CSV, NDJSON and Parquet; the columns show whether a file holds books or observations. Import the books first. The
whole file is imported or nothing. Rows that already exist are left alone; if a row contradicts an existing one, the
file is refused. To try it: `bookclub import books.csv`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString, NoReturn

import psycopg
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects import postgresql

from bookclub_platform.core.errors import BookclubError
from bookclub_platform.core.tables import SCHEMA, book_categories, book_observations, books, loads
from bookclub_platform.export import (
    ALSO_IN,
    CHUNK_BYTES,
    SPREADSHEET_MARK,
    TABLES,
    Format,
    Name,
    arrow_schema,
    file_columns,
    stored_columns,
)

SUFFIXES: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
PARQUET_ROWS = 5_000
_WHERE = re.compile(r"COPY incoming, line (\d+)(?:, column (\w+))?")
# Postgres accepts NaN and infinity from text, but none of our readers does.
_FINITE: dict[type, LiteralString] = {sa.Numeric: "{} <> 'NaN'", sa.DateTime: "isfinite({})"}
_INCOMING = sql.Identifier("pg_temp", "incoming")


class FileRefused(BookclubError):
    """A file cannot be imported as it is; nothing was imported."""

    def __init__(self, path: Path, fault: str) -> None:
        super().__init__(f"{path}: {fault} Nothing was imported.")


@dataclass(frozen=True, slots=True)
class Ingested:
    """The numbers of rows that were inserted into the table, and of rows that it already had."""

    table: Name
    inserted: int
    unchanged: int


def ingest(connection: sa.Connection, path: Path, *, is_spreadsheet_safe: bool = False) -> Ingested:
    """Insert the rows of `path` into its table. Call it inside a transaction: everything takes effect or nothing.

    Args:
        is_spreadsheet_safe: the CSV was exported this way; the added `'` is removed again.

    Raises:
        FileRefused: names the line or row and the field that is invalid, or the row that contradicts the table.
    """
    read = _READERS.get(SUFFIXES.get(path.suffix.lower(), ""))
    if read is None:
        raise FileRefused(path, f"its name must end in one of {', '.join(SUFFIXES)}.")
    source = read(path)
    name, columns = _table_of(path, source.columns)
    table = TABLES[name]
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor:
        # Loads wait, readers do not. The order is that in which a load takes the locks, to avoid a deadlock.
        cursor.execute(
            f"LOCK TABLE {SCHEMA}.books, {SCHEMA}.book_observations, {SCHEMA}.loads IN SHARE ROW EXCLUSIVE MODE"
        )
        _stage(cursor, path, table, columns, source)
        if is_spreadsheet_safe:
            _take_marks_off(cursor, table, columns)
        _refuse_contradictions(cursor, path, table)
        inserted, staged = _insert(cursor, table, [name for name in columns if name != ALSO_IN.name])
        if ALSO_IN.name in columns:
            _insert_other_categories(cursor, path)
    if table is books and inserted:
        _note(connection, path, inserted)
    return Ingested(name, inserted, staged - inserted)


@dataclass(frozen=True, slots=True)
class _Source:
    """An opened file. `copy_options` and `send` define how its rows are passed to a COPY."""

    columns: Sequence[str]
    copy_options: str
    send: Callable[[psycopg.Copy, sa.Table], None]


def _table_of(path: Path, columns: Sequence[str]) -> tuple[Name, Sequence[str]]:
    """The table that the columns belong to. Nullable columns may be missing: an older export does not have them."""
    name: Name = "observations" if "book_id" in columns else "books"
    known = {column.name: column for column in file_columns(TABLES[name])}
    unknown = [column for column in columns if column not in known]
    missing = [column.name for column in known.values() if not column.nullable and column.name not in columns]
    if unknown or missing or len(set(columns)) < len(columns):
        faults = [f"unknown, of a newer release perhaps: {', '.join(unknown)}"] if unknown else []
        faults += [f"missing: {', '.join(missing)}"] if missing else []
        raise FileRefused(
            path,
            f"its columns are not those of {name} ({'; '.join(faults) or 'one is there twice'}): {', '.join(known)}.",
        )
    return name, columns


def _stage(cursor: psycopg.Cursor[Any], path: Path, table: sa.Table, columns: Sequence[str], source: _Source) -> None:
    """Copy the rows into a temporary table with the real one's constraints, so that a bad row is reported by line."""
    target = sql.Identifier(SCHEMA, table.name)
    cursor.execute("DROP TABLE IF EXISTS pg_temp.incoming")
    cursor.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE incoming (LIKE {} INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED "
            "INCLUDING INDEXES) ON COMMIT DROP"
        ).format(target)
    )
    for column in stored_columns(table):
        if (rule := _FINITE.get(type(column.type))) is not None:
            cursor.execute(
                sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} CHECK ({})").format(
                    _INCOMING,
                    sql.Identifier(f"{column.name}_is_finite"),
                    sql.SQL(rule).format(sql.Identifier(column.name)),
                )
            )
    # Beyond 2^53 JSON numbers are not exact, and after the last bigint the table could give no new book an id.
    key = sql.Identifier("id" if table is books else "book_id")
    cursor.execute(
        sql.SQL('ALTER TABLE {} ADD CONSTRAINT "id_from_1_to_2^53" CHECK ({} BETWEEN 1 AND {})').format(
            _INCOMING, key, sql.Literal(2**53)
        )
    )
    if ALSO_IN.name in columns:
        cursor.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {column} jsonb CHECK (jsonb_typeof({column}) = 'array')").format(
                _INCOMING, column=sql.Identifier(ALSO_IN.name)
            )
        )
    cursor.execute("SET LOCAL TimeZone = 'UTC'")  # for timestamps without a time zone
    command = sql.SQL("COPY {} ({}) FROM STDIN {}").format(_INCOMING, _names(columns), sql.SQL(source.copy_options))
    try:
        with cursor.copy(command) as copy:
            source.send(copy, table)
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError) as error:
        _refuse(path, error)


def _refuse(path: Path, error: psycopg.Error) -> NoReturn:
    diag = error.diag
    found = _WHERE.search(diag.context or "")
    line = f"line {found[1]}, " if found else ""
    column = (found and found[2]) or diag.column_name
    field = f"field {column}, " if column else ""
    # The detail of other faults repeats the whole row.
    detail = f" {diag.message_detail}" if isinstance(error, psycopg.errors.UniqueViolation) else ""
    text = (diag.message_primary or str(error)).replace('relation "incoming"', "the table")
    raise FileRefused(path, f"{line}{field}{text}.{detail}") from error


def _take_marks_off(cursor: psycopg.Cursor[Any], table: sa.Table, columns: Sequence[str]) -> None:
    texts = [name for name in columns if name in table.c and isinstance(table.c[name].type, sa.String)]
    for name in texts:
        cursor.execute(
            sql.SQL("UPDATE {} SET {column} = substr({column}, 2) WHERE starts_with({column}, {mark})").format(
                _INCOMING, column=sql.Identifier(name), mark=sql.Literal(SPREADSHEET_MARK)
            )
        )


def _refuse_contradictions(cursor: psycopg.Cursor[Any], path: Path, table: sa.Table) -> None:
    """Raise FileRefused if a row has the key (its id or the shop's own) of a row in the table and differs from it."""
    target, names = sql.Identifier(SCHEMA, table.name), [column.name for column in stored_columns(table)]
    keys = [
        constraint.columns.keys()
        for constraint in table.constraints
        if isinstance(constraint, sa.PrimaryKeyConstraint | sa.UniqueConstraint)
    ]
    for key in keys:
        query = sql.SQL(
            "SELECT {new}, {old} FROM {incoming} AS new JOIN {target} AS old USING ({key}) "
            "WHERE ({new}) IS DISTINCT FROM ({old}) LIMIT 1"
        ).format(
            incoming=_INCOMING,
            target=target,
            key=_names(key),
            **{side: sql.SQL(", ").join(sql.Identifier(side, name) for name in names) for side in ("new", "old")},
        )
        row = cursor.execute(query).fetchone()
        if row is not None:
            new, old = (dict(zip(names, half, strict=True)) for half in (row[: len(names)], row[len(names) :]))
            place = ", ".join(f"{name} {new[name]}" for name in key)
            faults = "; ".join(
                f"{name} is {new[name]!s:.60}, there {old[name]!s:.60}" for name in names if new[name] != old[name]
            )
            raise FileRefused(path, f"the row with {place} is another in the table already ({faults}).")
    if table is book_observations:
        orphan = cursor.execute(
            sql.SQL(
                "SELECT book_id FROM {} AS new WHERE NOT EXISTS (SELECT FROM {} WHERE id = new.book_id) LIMIT 1"
            ).format(_INCOMING, sql.Identifier(SCHEMA, books.name))
        ).fetchone()
        if orphan is not None:
            raise FileRefused(path, f"its book_id {orphan[0]} is not in the table books: import the books first.")


def _insert(cursor: psycopg.Cursor[Any], table: sa.Table, columns: Sequence[str]) -> tuple[int, int]:
    """(rows inserted, rows in the file)."""
    target = sql.Identifier(SCHEMA, table.name)
    names = list(table.primary_key.columns.keys())
    old, new = (sql.SQL(", ").join(sql.Identifier(side, name) for name in names) for side in ("old", "new"))
    query = sql.SQL(
        "INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {incoming} AS new "
        "WHERE NOT EXISTS (SELECT FROM {target} AS old WHERE ({old}) = ({new})) ORDER BY {key}"
    ).format(target=target, columns=_names(columns), incoming=_INCOMING, key=_names(names), old=old, new=new)
    inserted = cursor.execute(query).rowcount
    count = cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(_INCOMING)).fetchone()
    assert count is not None
    return inserted, count[0]


def _insert_other_categories(cursor: psycopg.Cursor[Any], path: Path) -> None:
    """Insert the other categories that list the books of the file; existing rows are left alone."""
    listed = sql.SQL(
        "{} AS new, jsonb_to_recordset(new.also_in) AS other(category text, category_name text, "
        "last_seen_at timestamptz)"
    ).format(_INCOMING)
    try:
        lacking = cursor.execute(
            sql.SQL(
                "SELECT new.id FROM {} WHERE NOT coalesce(other.category <> '' AND other.category_name <> '' "
                "AND isfinite(other.last_seen_at), false) LIMIT 1"
            ).format(listed)
        ).fetchone()
        if lacking is not None:
            needed = "category, category_name and last_seen_at of each"
            raise FileRefused(path, f"also_in of the book with id {lacking[0]} needs {needed}.")
        cursor.execute(
            sql.SQL(
                "INSERT INTO {} (book_id, category, category_name, last_seen_at) "
                "SELECT new.id, other.category, other.category_name, other.last_seen_at FROM {} ON CONFLICT DO NOTHING"
            ).format(sql.Identifier(SCHEMA, book_categories.name), listed)
        )
    except psycopg.DataError as error:
        _refuse(path, error)


def _note(connection: sa.Connection, path: Path, inserted: int) -> None:
    """Move the id sequence past the imported ids, and raise the data version, so that caches are refreshed."""
    sequence = sa.func.pg_get_serial_sequence(f"{SCHEMA}.books", "id")
    last = sa.func.pg_sequence_last_value(sa.cast(sequence, postgresql.REGCLASS))
    connection.execute(sa.select(sa.func.setval(sequence, sa.func.greatest(sa.func.max(books.c.id), last))))
    connection.execute(
        sa.insert(loads).values(
            source="import",
            category=path.name,
            crawl_id=f"import of {path.name}",
            inserted=inserted,
            updated=0,
            delisted=0,
        )
    )


def _names(columns: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _read_csv(path: Path) -> _Source:
    """The file as it is: Postgres parses the CSV itself, and reports line and column of a fault."""
    with path.open("rb") as file:
        head = file.readline().removeprefix("\ufeff".encode())
        start = file.tell()

    def send(copy: psycopg.Copy, table: sa.Table) -> None:
        with path.open("rb") as file:
            copy.write(head)
            file.seek(start)
            while block := file.read(CHUNK_BYTES):
                copy.write(block)

    columns = next(csv.reader([head.decode(errors="replace")]), [])
    return _Source(columns, "(FORMAT csv, HEADER true)", send)


def _read_ndjson(path: Path) -> _Source:
    def lines() -> Iterator[dict[str, Any]]:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line, parse_float=Decimal, parse_constant=_no_number)
                except (ValueError, RecursionError) as error:
                    raise FileRefused(path, f"line {number} is no JSON: {error}.") from error
                if not isinstance(row, dict):
                    raise FileRefused(path, f"line {number} is no JSON object.")
                _check_values(number, row)
                yield row

    def _check_values(number: int, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, dict | list) and name != ALSO_IN.name:
                raise FileRefused(
                    path, f"line {number}, field {name}: a {type(value).__name__} is no value of a column."
                )
            if isinstance(value, str) and "\0" in value:
                raise FileRefused(path, f"line {number}, field {name}: holds a NUL, which Postgres cannot keep.")

    columns = list(next(lines(), {}))

    def send(copy: psycopg.Copy, table: sa.Table) -> None:
        for number, row in enumerate(lines(), 1):
            if row.keys() != set(columns):
                differing = ", ".join(sorted(row.keys() ^ set(columns)))
                raise FileRefused(path, f"line {number} has other fields than line 1: {differing}.")
            copy.write_row(
                [
                    json.dumps(row[name], default=str) if isinstance(row[name], list | dict) else row[name]
                    for name in columns
                ]
            )

    return _Source(columns, "", send)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _read_parquet(path: Path) -> _Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True)
    except pa.ArrowInvalid as error:
        raise FileRefused(path, f"is no Parquet file: {error}.") from error
    columns = file.schema_arrow.names

    def send(copy: psycopg.Copy, table: sa.Table) -> None:
        schema, first = arrow_schema(table), 1
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            values = []
            for name in columns:
                try:
                    values.append(batch.column(name).cast(schema.field(name).type).to_pylist())
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                    rows = f"rows {first} to {first + len(batch) - 1}"
                    raise FileRefused(path, f"{rows}, field {name}: {error}.") from error
            for row in zip(*values, strict=True):
                copy.write_row(row)
            first += len(batch)

    return _Source(columns, "", send)


_READERS: dict[str, Callable[[Path], _Source]] = {"csv": _read_csv, "ndjson": _read_ndjson, "parquet": _read_parquet}
