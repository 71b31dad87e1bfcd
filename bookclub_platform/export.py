"""Table -> a file in a common format: one snapshot -> CSV, NDJSON or Parquet, as chunks of bytes, in constant memory.

    with snapshot(url) as connection, closing(export_chunks(connection, "books", "ndjson")) as chunks:
        for chunk in chunks: ...

ingest.py imports the file again without any change: NULL differs from the empty string (in CSV: nothing between the
commas, as opposed to `""`), timestamps are in UTC in the format of RFC 3339 and the API, prices keep their decimals.
The last column of a book, `also_in`, is JSON: the other categories that list the book. `bookclub export` writes a file;
the API can stream the same chunks. To try it: `bookclub export books --format csv | head`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from bookclub_platform.core.files import replaced
from bookclub_platform.core.tables import book_categories, book_observations, books

Name = Literal["books", "observations"]
Format = Literal["csv", "ndjson", "parquet"]
TABLES: dict[Name, sa.Table] = {"books": books, "observations": book_observations}
# Null for a book that one category lists: [{"category": "travel", "category_name": "Travel", "last_seen_at": ...}].
ALSO_IN = sa.Column("also_in", postgresql.JSONB)
CHUNK_BYTES = 64 * 1024
PARQUET_ROWS = 10_000  # per row group: about 20 MB as Python objects
# What makes a spreadsheet treat a text as a formula (OWASP: CSV injection), and our own mark, which is prefixed too, so
# that an original mark can be distinguished from an added one.
SPREADSHEET_MARK = "'"
_FORMULA = r"^['=+\-@\t\r\n＝＋－＠]"
_MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'  # in the session's time zone, which is UTC
_LINE_ENDS = "\x85\u2028\u2029"
_DIALECT: sa.Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_BOM = "\ufeff".encode()  # without it Excel reads UTF-8 in the machine's legacy code page


@contextmanager
def snapshot(url: str) -> Iterator[sa.Connection]:
    """A read-only connection with a fixed snapshot: it does not see what is committed later."""
    engine = sa.create_engine(
        url, poolclass=sa.NullPool, isolation_level="REPEATABLE READ", execution_options={"postgresql_readonly": True}
    )
    with engine.connect() as connection:
        yield connection


def export_chunks(
    connection: sa.Connection,
    name: Name,
    format: Format,
    *,
    with_delisted: bool = False,
    is_spreadsheet_safe: bool = False,
    after: int = 0,
) -> Generator[bytes, None, None]:
    """The table `name` in order of its key, in chunks of about CHUNK_BYTES (Parquet: one row group).

    A caller that may stop early must close the generator before the connection: a running COPY occupies the connection,
    and returning that would block forever.

    Args:
        connection: inside a transaction (`snapshot` above); no other statement may run on it until the last chunk.
        with_delisted: also the delisted books and their observations.
        is_spreadsheet_safe: only for CSV: prefixes a text that a spreadsheet would run as a formula with `'`.
        after: only rows with a higher book id, for a caller that already has the rest; CSV then has no header.
    """
    if is_spreadsheet_safe and format != "csv":
        raise ValueError("spreadsheet-safe is a kind of CSV")
    connection.execute(sa.select(sa.func.set_config("TimeZone", "UTC", True)))
    rows = _rows(TABLES[name], with_delisted, after)
    match format:
        case "csv":
            query = _as_csv(rows, is_spreadsheet_safe)
            start = [_BOM] if is_spreadsheet_safe else []
            copied = _copied(connection, query, f"FORMAT csv, HEADER {'false' if after else 'true'}")
            return _joined([*start], _with_crlf(copied))
        case "ndjson":
            line = rows.with_only_columns(*map(_written, rows.selected_columns)).subquery("line")
            query = sa.select(_one_line(sa.func.row_to_json(sa.literal_column(line.name)))).select_from(line)
            # JSON contains no control characters: with these two as quote and delimiter, CSV changes no line.
            return _joined([], _copied(connection, query, "FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02'"))
        case "parquet":
            return _parquet(connection, TABLES[name], rows)


def write_file(path: Path, chunks: Iterable[bytes]) -> int:
    """Write the chunks atomically: `path` holds the whole file or its old content. Returns the number of bytes written.

    If `path` exists and is not a regular file (a pipe, /dev/null), it is written to and not replaced.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as device:
            return sum(device.write(chunk) for chunk in chunks)
    with replaced(path) as file:
        size = sum(file.write(chunk) for chunk in chunks)
        file.flush()
        os.fsync(file.fileno())
    return size


def stored_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns that are written, without those computed by the database."""
    return [column for column in table.columns if column.computed is None]


def file_columns(table: sa.Table) -> list[sa.Column[Any]]:
    """The columns of an exported file: the newest come last, and a file of an older release lacks them."""
    return [*stored_columns(table), *([ALSO_IN] if table is books else [])]


def _rows(table: sa.Table, with_delisted: bool, after: int) -> sa.Select[Any]:
    rows = sa.select(*stored_columns(table)).order_by(*table.primary_key.columns)
    if table is books:
        others = _also_in()
        rows = rows.add_columns(others.c.also_in).select_from(books.outerjoin(others, others.c.book_id == books.c.id))
    if after:
        rows = rows.where((books.c.id if table is books else table.c.book_id) > after)
    if with_delisted:
        return rows
    if table is books:
        return rows.where(books.c.delisted_at.is_(None))
    is_listed = sa.exists().where(books.c.id == book_observations.c.book_id, books.c.delisted_at.is_(None))
    return rows.where(is_listed)


def _also_in() -> sa.Subquery:
    names = ("category", "category_name", "last_seen_at")
    one = sa.func.jsonb_build_object(*(part for name in names for part in (name, _written(book_categories.c[name]))))
    all_of_it = sa.func.jsonb_agg(postgresql.aggregate_order_by(one, book_categories.c.category), type_=ALSO_IN.type)
    return sa.select(book_categories.c.book_id, all_of_it.label(ALSO_IN.name)).group_by("book_id").subquery()


def _written(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A timestamp as pydantic writes it: Postgres has a space for the T, +00 for the Z, and no trailing zeros."""
    if not isinstance(column.type, sa.DateTime):
        return column
    return sa.func.replace(sa.func.to_char(column, _MOMENT), ".000000Z", "Z").label(str(column.key))


def _one_line(json: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The JSON as text, with Unicode's line separators escaped: JSON leaves them as they are, but many line readers
    (Python's str.splitlines, httpx) would split a book there."""
    text: sa.ColumnElement[Any] = sa.cast(json, sa.Text)
    for sign in _LINE_ENDS:
        text = sa.func.replace(text, sign, f"\\u{ord(sign):04x}")
    return text


def _as_csv(rows: sa.Select[Any], is_spreadsheet_safe: bool) -> sa.Select[Any]:
    def cell(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        if isinstance(column.type, sa.Boolean):
            return sa.cast(column, sa.Text)  # true, not t, as other programs expect a boolean
        if is_spreadsheet_safe and isinstance(column.type, sa.String):
            return sa.case((column.regexp_match(_FORMULA), SPREADSHEET_MARK + column), else_=column)
        return _written(column)

    return rows.with_only_columns(*(cell(column).label(str(column.key)) for column in rows.selected_columns))


def _copied(connection: sa.Connection, query: sa.Select[Any], options: str) -> Generator[bytes, None, None]:
    """The rows of `query` as the server formats them."""
    text = query.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True}).string
    with _cursor(connection) as cursor, cursor.copy(f"COPY ({text}) TO STDOUT ({options})") as copy:
        for row in copy:
            yield bytes(row)


def _with_crlf(rows: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    """Lines of CSV with the line ending of RFC 4180. The protocol guarantees one row per message (CopyData); a line
    feed inside a text stays as it is."""
    with closing(rows):
        for row in rows:
            yield row[:-1] + b"\r\n"


def _joined(start: list[bytes], rows: Generator[bytes, None, None]) -> Generator[bytes, None, None]:
    waiting, size = start, 0
    with closing(rows):
        for row in rows:
            waiting.append(row)
            size += len(row)
            if size >= CHUNK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def _parquet(connection: sa.Connection, table: sa.Table, rows: sa.Select[Any]) -> Generator[bytes, None, None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, sink = arrow_schema(table), _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        texts = (sa.cast(c, sa.Text) if isinstance(c.type, sa.JSON) else c for c in rows.selected_columns)
        result = connection.execution_options(yield_per=PARQUET_ROWS).execute(rows.with_only_columns(*texts))
        for part in result.partitions():
            columns = [
                pa.array(values, kind) for values, kind in zip(zip(*part, strict=True), schema.types, strict=True)
            ]
            writer.write_batch(pa.record_batch(columns, schema=schema), row_group_size=PARQUET_ROWS)
            yield sink.taken()
    yield sink.taken()


def arrow_schema(table: sa.Table) -> Any:
    """The pyarrow schema of a file of the table; JSON is text."""
    import pyarrow as pa

    def kind(column: sa.Column[Any]) -> Any:
        if isinstance(column.type, sa.Numeric):
            return pa.decimal128(column.type.precision or 38, column.type.scale or 0)
        if isinstance(column.type, sa.DateTime):
            return pa.timestamp("us", "UTC")
        for sql, arrow in (
            (sa.BigInteger, pa.int64()),
            (sa.SmallInteger, pa.int16()),
            (sa.Integer, pa.int32()),
            (sa.Boolean, pa.bool_()),
            (sa.String | sa.JSON, pa.string()),
        ):
            if isinstance(column.type, sql):
                return arrow
        raise TypeError(f"column {column} has a type without a counterpart in Parquet: {column.type}")

    return pa.schema([pa.field(c.name, kind(c), nullable=bool(c.nullable)) for c in file_columns(table)])


class _Sink(io.RawIOBase):
    """A file whose content is passed on as it is written."""

    def __init__(self) -> None:
        self._written: list[bytes] = []
        self._at = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        self._written.append(bytes(data))
        self._at += len(self._written[-1])
        return len(self._written[-1])

    def taken(self) -> bytes:
        """The bytes written since the last call."""
        written, self._written = self._written, []
        return b"".join(written)


def _cursor(connection: sa.Connection) -> Any:
    driver: Any = connection.connection.driver_connection
    return driver.cursor()
