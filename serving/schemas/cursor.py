"""Where a page ended <-> the text that a client sends back for the next page.

    20                by id: the id of the page's last book
    20.p1250          by price: the id and the price in cents; P: descending
    20.r4, 20.R0      by stars; 6 and 0 stand for a book without stars, which comes last in either order
    20.t7468652073    by title: the part of the title that is compared, as UTF-8 in hexadecimal
    20.F1767268800000000   by first sighting: in microseconds since 1970

Search results are one list, and a cursor holds the number of books before the page:

    20                by relevance; 20.p, 20.P, ... in another order, with its letter (i: by id)

Both kinds end with a short digest of the request, which identifies the list: 20.p1250-5f3c9a1e. A cursor without a
digest, as in earlier releases, is valid in any list.

Nothing in a cursor is secret, and any text of this form is a place in its order, so there is nothing to sign: a made-up
cursor returns a page that the client could also reach by paging.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

from bookclub_platform.core.browse import Filters, Position, SearchSort, Sort
from serving.http.digits import ID

_MARK = "(-[0-9a-f]{8})?$"
_FORM = (
    f"^{ID}([.]([pP][0-9]{{1,10}}|r[1-6]|R[0-5]|t([0-7][0-9a-f]|[c-f][0-9a-f]([89ab][0-9a-f]){{1,3}}){{0,100}}"
    f"|F[0-9]{{1,16}}))?{_MARK}"
)
_MAX_LENGTH = 1000
_LETTERS: dict[Sort, str] = {"price": "p", "-price": "P", "rating": "r", "-rating": "R", "title": "t"}
_LETTERS |= {"-first_seen": "F", "id": ""}
_SORTS = {letter: sort for sort, letter in _LETTERS.items()}
_BY_ID = "i"
PLACE = f"^[1-9][0-9]{{0,3}}([.][pPrRtFi])?{_MARK}"
BY_ID = f"^{ID}{_MARK}"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class DecodedCursor:
    """A decoded cursor: the order and the list that it belongs to, and the place in it."""

    sort: Sort
    after: Position
    mark: str


@lru_cache(4000)
def mark_of(filters: Filters, text: str = "") -> str:
    """A digest that identifies the list of books that pass the filters and match `text`."""
    # Filters that are not set are left out, so that a new kind of filter changes no existing mark.
    told = [(name, str(value)) for name, value in filters._asdict().items() if value is not None]
    return hashlib.blake2b(repr((text, told)).encode("utf-8", "replace"), digest_size=4).hexdigest()


def is_of(mark: str, filters: Filters, text: str = "") -> bool:
    """Whether a cursor with that mark belongs to this list; one without a mark fits any list."""
    return mark in {"", mark_of(filters, text)}


def encode(sort: Sort, last: Position, mark: str) -> str:
    """`last` as text that is safe in a URL; for clients it is opaque."""
    key = f".{_LETTERS[sort]}{_key_text(last.key)}" if sort != "id" else ""
    return f"{last.book_id}{key}-{mark}"


def decode(text: Any) -> DecodedCursor:
    """The page that begins after `text`.

    Raises:
        ValueError: `encode` did not make it.
    """
    if len(str(text)) > _MAX_LENGTH or not re.fullmatch(_FORM, str(text), re.ASCII):
        raise ValueError("not a cursor of this API: take it from `next`, or leave it out for the first page")
    place, _, mark = str(text).partition("-")
    book_id, _, key = place.partition(".")
    sort = _SORTS[key[:1]]
    return DecodedCursor(sort, Position(int(book_id), _key(sort, key[1:])), mark)


def encode_place(sort: SearchSort, start: int, mark: str) -> str:
    """How many books of a search in that order come before the page, as text."""
    return f"{start}{'' if sort == 'relevance' else f'.{_LETTERS[sort] or _BY_ID}'}-{mark}"


def decode_place(text: str) -> tuple[SearchSort, int, str]:
    """The order, the place and the mark of a cursor of the form PLACE."""
    place, _, mark = text.partition("-")
    start, _, letter = place.partition(".")
    return _SORTS[letter.removeprefix(_BY_ID)] if letter else "relevance", int(start), mark


def _key_text(key: object) -> str:
    match key:
        case Decimal():
            return str(int(key.scaleb(2)))
        case datetime():
            return str((key - _EPOCH) // timedelta(microseconds=1))
        case str():
            return key.encode().hex()
        case _:
            return str(key)


def _key(sort: Sort, text: str) -> Decimal | int | str | datetime | None:
    match sort:
        case "id":
            return None
        case "price" | "-price":
            return Decimal(text).scaleb(-2)
        case "-first_seen":
            return _EPOCH + timedelta(microseconds=int(text))
        case "title":
            # Postgres text holds neither NUL nor invalid UTF-8; a made-up cursor without them is still a valid place.
            return bytes.fromhex(text).decode("utf-8", "replace").replace("\x00", "")
        case _:
            return int(text)


# Typed as Any because pydantic would describe a DecodedCursor in /docs: to clients a cursor is a string.
Cursor = Annotated[
    Any, PlainValidator(decode), WithJsonSchema({"type": "string", "pattern": _FORM, "maxLength": _MAX_LENGTH})
]
