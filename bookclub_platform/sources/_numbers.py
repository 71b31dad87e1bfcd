"""A text of a source -> the count that it holds. Sources send numbers of 5,000 digits, which `int` refuses to read."""

from __future__ import annotations

import re

_COUNT = re.compile(r"\s*([0-9]{1,18})\s*")


def count_in(text: str | None) -> int | None:
    """12 of " 12 "; None for anything but a number of up to 18 digits."""
    match = _COUNT.fullmatch(text or "")
    return int(match[1]) if match else None
