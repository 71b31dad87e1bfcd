"""The last id of a page <-> the text that a client sends back for the next page."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

# The largest integer that readers of JSON keep exact (RFC 8259, 6), a double's 2^53 - 1; far below Postgres' bigint.
MAX_ID = 2**53 - 1
_FORM = "^[1-9][0-9]{0,14}$"


def encode(last_id: int) -> str:
    """`last_id` as text that fits into a URL; clients are told to make nothing of it, so that sorting can move in."""
    return str(last_id)


def decode(text: Any) -> int:
    """The id in `text`.

    Raises:
        ValueError: `encode` did not make it.
    """
    if not re.fullmatch(_FORM, str(text), re.ASCII):
        raise ValueError("not a cursor of this API: take it from `next`, or leave it out for the first page")
    return int(text)


Cursor = Annotated[int, PlainValidator(decode), WithJsonSchema({"type": "string", "pattern": _FORM})]
