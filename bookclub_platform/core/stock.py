"""The listed books -> columns of numbers, a million in a second or two: what a filter asks, and whether a text changed.

    stock = read_stock(connection)        stock.ids, stock.price, ...    (n,) each, in order of id
    stock.category == fingerprint("travel")

Texts come as fingerprints: the first eight bytes of the SHA-256 of the UTF-8, as an integer; the same here as in SQL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from bookclub_platform.core.tables import SCHEMA, books

_SEPARATOR = "\x1f"  # no shop writes it, and cleaning would take it out

# One value of the width of all rows: drivers make a Python object of each field, which takes ten times as long.
_PACKED = sa.text(
    f"""
    SELECT string_agg(
        int8send(id)
        || substr(sha256(convert_to(category, 'UTF8')), 1, 8)
        || float8send(price::float8)
        || int4send(coalesce(num_reviews, 0))
        || int2send(coalesce(rating, 0::smallint))
        || int2send(in_stock::int::smallint)
        || substr(sha256(convert_to(
            title || chr(31) || coalesce(description, '') || chr(31) || category || chr(31) || category_name, 'UTF8'
        )), 1, 8)
        || xidsend(xmin), ''::bytea ORDER BY id)
    FROM {SCHEMA}.books WHERE delisted_at IS NULL
    """  # noqa: S608 (the schema's name is ours)
)
# Every column of the listed books among `ids`, and `version`, as in Stock.
SELECT_VERSIONED: sa.Select[Any] = (
    sa.select(books, sa.literal_column("xmin::text::bigint", sa.BigInteger).label("version"))
    .where(books.c.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(sa.BigInteger))))
    .where(books.c.delisted_at.is_(None))
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
    ]
)


class Stock(NamedTuple):
    """The listed books in order of id, a column each, (n,).

    Attributes:
        category: fingerprint of the slug.
        rating: 0 where the shop shows none; so `reviews`.
        text: fingerprint of what a model reads of the book: see `text_fingerprint`.
        version: of the row: the transaction that wrote it, another one after each change of anything in it.
    """

    ids: NDArray[np.int64]
    category: NDArray[np.int64]
    price: NDArray[np.float64]
    reviews: NDArray[np.int32]
    rating: NDArray[np.int8]
    in_stock: NDArray[np.bool_]
    text: NDArray[np.int64]
    version: NDArray[np.uint32]


def fingerprint(text: str) -> int:
    """A number of 64 bits, with its sign."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big", signed=True)


def text_fingerprint(title: str, description: str | None, category: str, category_name: str) -> int:
    """The fingerprint of what a content model reads of a book; equal as long as none of it changes."""
    return fingerprint(_SEPARATOR.join((title, description or "", category, category_name)))


def read_stock(connection: sa.Connection) -> Stock:
    """All listed books, in one statement."""
    driver = connection.connection.driver_connection
    assert driver is not None
    with driver.cursor(binary=True) as cursor:  # as text the bytes would come twice as long
        packed = cursor.execute(_PACKED.text).fetchone()[0]
    rows = np.frombuffer(packed or b"", dtype=_ROW)
    return Stock(
        rows["id"].astype(np.int64),
        rows["category"].astype(np.int64),
        rows["price"].astype(np.float64),
        rows["reviews"].astype(np.int32),
        rows["rating"].astype(np.int8),
        rows["in_stock"].astype(np.bool_),
        rows["text"].astype(np.int64),
        rows["version"].astype(np.uint32),
    )


def select_texts(ids: Sequence[int]) -> sa.Select[Any]:
    """(id, title, description, category, category_name) of the listed books among `ids`, in order of id."""
    names = ["id", "title", "description", "category", "category_name"]
    return (
        sa.select(*(books.c[name] for name in names))
        .where(books.c.id == sa.func.any(sa.literal(list(ids), sa.ARRAY(sa.BigInteger))))
        .where(books.c.delisted_at.is_(None))
        .order_by(books.c.id)
    )
