"""The listed books -> columns of numbers for filters and for detecting changed texts; a million in a second or two.

    stock = read_stock(connection)             stock.ids, stock.price, ...    (n,) each, in order of id
    stock = read_changes(connection, stock)    the same, reading only the rows that were written since
    stock.category == fingerprint("travel")

Texts are represented by fingerprints: the first eight bytes of the SHA-256 of the UTF-8, as an integer, computed the
same way in Python and in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.tables import IS_LISTED, SCHEMA, books, is_among

_SEPARATOR = "\x1f"  # no shop writes it, and cleaning would remove it

# All rows packed into one value: drivers create a Python object per field, which takes ten times as long.
_PACKED = """
    string_agg(
        int8send(id)
        || substr(sha256(convert_to(category, 'UTF8')), 1, 8)
        || float8send(price::float8)
        || int4send(coalesce(num_reviews, 0))
        || int2send(coalesce(rating, 0::smallint))
        || int2send(in_stock::int::smallint)
        || substr(sha256(convert_to(
            title || chr(31) || coalesce(description, '') || chr(31) || category || chr(31) || category_name, 'UTF8'
        )), 1, 8)
        || xidsend(xmin)
        || int2send((delisted_at IS NULL)::int::smallint)
        || int4send(coalesce(stock, 0))
        || substr(sha256(convert_to(
            source || chr(31) || category || chr(31) || category_name || chr(31) || currency, 'UTF8'
        )), 1, 8), ''::bytea ORDER BY id)
"""
_WHOLE = "count(*) FILTER (WHERE delisted_at IS NOT NULL), min(first_seen_at), max(updated_at)"
_LISTED = "count(*) FILTER (WHERE delisted_at IS NULL)"
_ALL = f"""
    SELECT {_LISTED}, {_PACKED} FILTER (WHERE delisted_at IS NULL), {_WHOLE} FROM {SCHEMA}.books
"""  # noqa: S608 (the names are ours)
# No index covers `xmin`, so all rows are scanned, but most are not processed further: a tenth of the work.
_CHANGED = f"""
    SELECT {_LISTED}, {_PACKED} FILTER (WHERE age(xmin) <= age(%s::text::xid)), {_WHOLE} FROM {SCHEMA}.books
"""  # noqa: S608
_WRAP = 2**32  # rows store the low 32 bits of a transaction id, and half of that range counts as past
# Every column of the listed books among `ids`, and `version` as in Stock.
SELECT_VERSIONED: sa.Select[Any] = (
    sa.select(books, sa.literal_column("xmin::text::bigint", sa.BigInteger).label("version"))
    .where(books.c.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(sa.BigInteger))))
    .where(IS_LISTED)
)
_ROW = np.dtype(
    [
        ("id", ">i8"),
        ("category", ">i8"),
        ("price", ">f8"),
        ("reviews", ">i4"),
        ("rating", ">i2"),
        ("in_stock", ">i2"),
        ("text", ">i8"),
        ("version", ">u4"),
        ("is_listed", ">i2"),
        ("copies", ">i4"),
        ("shelf", ">i8"),
    ]
)


class Mark(NamedTuple):
    """How far a table was read: every row written by a transaction before `transaction` was seen."""

    table: str
    transaction: int


class Whole(NamedTuple):
    """Figures over all books, listed or not: how many are delisted, the first sighting and the last change, UTC."""

    delisted: int
    first_seen_at: datetime | None
    updated_at: datetime | None


class Stock(NamedTuple):
    """The listed books in order of id, one array (n,) per column.

    Attributes:
        category: fingerprint of the slug.
        rating: 0 if the shop shows none; likewise `reviews`.
        text: fingerprint of what a model reads of the book: see `text_fingerprint`.
        version: of the row: the transaction that wrote it, which differs after every change to the row.
        copies: in stock; 0 if the shop does not count them.
        shelf: fingerprint of source, category, category_name and currency, which many books share; any one of these
            books can resolve it: see `select_shelf_rows`.
        mark: how far the table was read; None for books that are not from a table.
        whole: figures over all books of the table; None for books that are not from a table.
    """

    ids: NDArray[np.int64]
    category: NDArray[np.int64]
    price: NDArray[np.float64]
    reviews: NDArray[np.int32]
    rating: NDArray[np.int8]
    in_stock: NDArray[np.bool_]
    text: NDArray[np.int64]
    version: NDArray[np.uint32]
    copies: NDArray[np.int32]
    shelf: NDArray[np.int64]
    mark: Mark | None = None
    whole: Whole | None = None

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The arrays by name."""
        named = self._asdict()
        del named["mark"], named["whole"]
        return named

    def at(self, rows: NDArray[np.integer]) -> Stock:
        """Only the books at `rows`, in that order."""
        return Stock(**{name: array[rows] for name, array in self.columns.items()})


def fingerprint(text: str) -> int:
    """The fingerprint of `text`, a signed 64-bit integer."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def text_fingerprint(title: str, description: str | None, category: str, category_name: str) -> int:
    """The fingerprint of what a content model reads of a book; it stays the same as long as none of it changes."""
    return fingerprint(_SEPARATOR.join((title, description or "", category, category_name)))


def read_stock(connection: sa.Connection) -> Stock:
    """All listed books, in one statement; see `read_changes` for the snapshot."""
    mark = _mark(connection)
    _, rows, whole = _read(connection, _ALL)
    return _stock(rows, mark, whole)


def read_changes(connection: sa.Connection, known: Stock) -> Stock:
    """The same as `read_stock`, at a tenth of the cost if few rows were written since `known` was read; `known` itself
    if none was.

    The connection's transaction must have a single snapshot (REPEATABLE READ).
    """
    mark = _mark(connection)
    if known.mark is None or known.mark.table != mark.table:
        return read_stock(connection)
    if not 0 <= mark.transaction - known.mark.transaction < _WRAP // 4:
        return read_stock(connection)
    listed, rows, whole = _read(connection, _CHANGED, (str(known.mark.transaction % _WRAP),))
    stock = _changed(known, rows, mark, whole)
    return stock if len(stock.ids) == listed else read_stock(connection)  # rows were deleted, which leaves no trace


def _mark(connection: sa.Connection) -> Mark:
    # A restored table has another OID, or is in another cluster. Rows of transactions older than the oldest running one
    # are visible to this snapshot, or never will be.
    asked = sa.text(f"""
        SELECT (SELECT system_identifier FROM pg_control_system()) || '/' || '{SCHEMA}.books'::regclass::oid,
            pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    """)  # noqa: S608 (the name is ours)
    return Mark(*connection.execute(asked).one())


def _read(
    connection: sa.Connection, statement: str, parameters: Sequence[str] = ()
) -> tuple[int, NDArray[np.void], Whole]:
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor(binary=True) as cursor:  # in text format the bytes would take twice the space
        listed, packed, delisted, *moments = cursor.execute(statement, parameters).fetchone()
    whole = Whole(delisted, *(moment and moment.astimezone(UTC) for moment in moments))
    return listed, np.frombuffer(packed or b"", dtype=_ROW), whole


def _stock(rows: NDArray[np.void], mark: Mark, whole: Whole) -> Stock:
    return Stock(
        rows["id"].astype(np.int64),
        rows["category"].astype(np.int64),
        rows["price"].astype(np.float64),
        rows["reviews"].astype(np.int32),
        rows["rating"].astype(np.int8),
        rows["in_stock"].astype(np.bool_),
        rows["text"].astype(np.int64),
        rows["version"].astype(np.uint32),
        rows["copies"].astype(np.int32),
        rows["shelf"].astype(np.int64),
        mark,
        whole,
    )


def _changed(known: Stock, rows: NDArray[np.void], mark: Mark, whole: Whole) -> Stock:
    """`known`, with `rows` (ascending by id) replacing its entries of the same books."""
    if not len(rows):
        return known if known.whole == whole else known._replace(whole=whole)
    newer = _stock(rows[rows["is_listed"] == 1], mark, whole)
    columns = newer.columns
    at = known.ids.searchsorted(newer.ids)
    if len(known.ids) and len(newer.ids) == len(rows) and np.array_equal(known.ids.take(at, mode="clip"), newer.ids):
        merged = {name: _with(array, at, columns[name]) for name, array in known.columns.items()}
        return Stock(**merged, mark=mark, whole=whole)
    ids = rows["id"].astype(np.int64)
    at = known.ids.searchsorted(ids)
    is_kept = np.ones(len(known.ids) + 1, dtype=np.bool_)
    is_kept[at[np.append(known.ids, -1)[at] == ids]] = False
    place = known.ids[is_kept[:-1]].searchsorted(newer.ids)
    merged = {name: np.insert(array[is_kept[:-1]], place, columns[name]) for name, array in known.columns.items()}
    return Stock(**merged, mark=mark, whole=whole)


def _with(array: NDArray[Any], at: NDArray[np.int64], values: NDArray[Any]) -> NDArray[Any]:
    """`array` with `values` at `at`; `array` itself if nothing differs."""
    if np.array_equal(array[at], values):
        return array
    newer = array.copy()
    newer[at] = values
    return newer


def select_texts(ids: Sequence[int]) -> sa.Select[Any]:
    """(id, title, description, category, category_name) of the listed books among `ids`, in order of id."""
    names = ["id", "title", "description", "category", "category_name"]
    return sa.select(*(books.c[name] for name in names)).where(is_among(ids), IS_LISTED).order_by(books.c.id)


def select_shelf_rows(ids: Sequence[int]) -> sa.Select[Any]:
    """(id, source, category, category_name, currency, source_place) of books that each represent a shelf, ordered by
    name and slug of the category; `source_place` ranks the sources in Postgres' own collation order."""
    names = ["id", "source", "category", "category_name", "currency"]
    place = sa.func.dense_rank().over(order_by=books.c.source).label("source_place")
    return (
        sa.select(*(books.c[name] for name in names), place)
        .where(is_among(ids))
        .order_by(books.c.category_name, books.c.category)
    )
