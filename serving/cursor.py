"""The last id of a page <-> the opaque text that a client sends back for the next page."""

from __future__ import annotations

import base64
from typing import Annotated, Any

from pydantic import PlainValidator, WithJsonSchema

MAX_ID = 2**63 - 1  # Postgres' bigint: a larger number would be an error of the database, not an unknown book


def encode(last_id: int) -> str:
    """`last_id` as text that fits into a URL; opaque, so that sorting can move into it without breaking clients."""
    return base64.urlsafe_b64encode(str(last_id).encode()).rstrip(b"=").decode()


def decode(text: Any) -> int:
    """The id in `text`.

    Raises:
        ValueError: `encode` did not make it.
    """
    try:
        digits = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        last_id = int(digits) if len(digits) <= len(str(MAX_ID)) else -1
    except ValueError:
        last_id = -1
    if not 0 < last_id <= MAX_ID or encode(last_id) != text:
        raise ValueError("not a cursor of this API: take it from `next`, or leave it out for the first page")
    return last_id


Cursor = Annotated[int, PlainValidator(decode), WithJsonSchema({"type": "string", "maxLength": 64})]
