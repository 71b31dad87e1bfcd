"""A number as a client writes it -> the number, if it is written in the one way that JSON allows.

    book_id: Annotated[BookId, Path()]       1 -> 1;  01, 1_0, +1, 1.0 and " 1" -> 422

Python accepts all of these. Each book would have endless URLs, which caches and crawlers take for different books. And
the OpenAPI document only says integer or number, so clients know of no other notation.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

# The largest integer that JSON parsers keep exact (RFC 8259, 6): a double's 2^53 - 1. Far below Postgres' bigint.
MAX_ID = 2**53 - 1
ID = "[1-9][0-9]{0,15}"  # an id in a URL or a cursor, with at most as many digits as MAX_ID
_WHOLE = re.compile("0|-?[1-9][0-9]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _whole(value: Any) -> Any:
    """JSON has only one type of number: 5.0 is an integer in it, and some languages write integers that way."""
    if isinstance(value, str) and not _WHOLE.fullmatch(value):
        raise PydanticCustomError("int_parsing", "Input should be one integer in plain digits, without leading zeros")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _number(value: Any) -> Any:
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticCustomError("float_parsing", "Input should be a number, such as 19.99")
    return value


# In an annotation they come after the bounds: otherwise pydantic describes the bounds by names that JSON Schema does
# not have.
WHOLE, NUMBER = BeforeValidator(_whole), BeforeValidator(_number)
Id = Annotated[int, Field(ge=1, le=MAX_ID), WHOLE]
StrictId = Annotated[int, Field(strict=True, ge=1, le=MAX_ID), WHOLE]
BookId = Annotated[Id, Field(description="`id` of the book.", examples=[1])]
Stars = Annotated[int, Field(ge=1, le=5), WHOLE]
Amount = Annotated[float, Field(ge=0, le=99_999_999.99, allow_inf_nan=False), NUMBER]
Price = Annotated[  # Postgres stores prices as decimals; 1e-99999 has too many digits even for it
    Decimal,
    Field(ge=0, le=Decimal("99999999.99"), allow_inf_nan=False),
    NUMBER,
    AfterValidator(lambda price: Decimal(repr(float(price)))),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 99_999_999.99}),
]
