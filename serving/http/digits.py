"""Numbers as clients write them -> the number, if it is written in the one way that JSON has for it.

    book_id: Annotated[BookId, Path()]       1 -> 1;  01, 1_0, +1, 1.0 and " 1" -> 422

Python reads all of those. A book would have addresses without end, which caches and crawlers take for as many books;
and where the OpenAPI document says integer or number, clients know of no other way.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

# The largest integer that readers of JSON keep exact (RFC 8259, 6), a double's 2^53 - 1; far below Postgres' bigint.
MAX_ID = 2**53 - 1
ID = "[1-9][0-9]{0,15}"  # every id up to MAX_ID, in an address or a cursor: as many digits
_WHOLE = re.compile("0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _whole(value: Any) -> Any:
    """JSON has one kind of number: 5.0 is an integer to it, and some languages write integers so."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise ValueError("Input should be an integer in plain digits, without leading zeros")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise ValueError("Input should be a number, such as 19.99")
    return value


# Behind the bounds in an annotation: pydantic would describe those before it by names that JSON Schema does not have.
WHOLE, NUMBER = BeforeValidator(_whole), BeforeValidator(_number)
Id = Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
StrictId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID), WHOLE]
BookId = Annotated[Id, Field(description="`id` of the book.", examples=[1])]
Stars = Annotated[int, Field(ge=1, le=5), WHOLE]
Amount = Annotated[float, Field(ge=0, le=99_999_999.99, allow_inf_nan=False), NUMBER]
Price = Annotated[  # Postgres keeps prices as decimals; of 1e-99999 even it would make too many digits
    Decimal,
    Field(ge=0, le=Decimal("99999999.99"), allow_inf_nan=False),
    NUMBER,
    AfterValidator(lambda price: Decimal(repr(float(price)))),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 99_999_999.99}),
]
