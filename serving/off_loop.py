"""Work of some milliseconds -> done off the event loop, in the order in which it came.

    near = await in_turn(search, lineup, 7)       what search(lineup, 7) returns or raises

One after the other: side by side each would take as long as all of them together, the first as long as the last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SMALL = 20_000  # of so many books any list is found in less time than another thread takes to begin
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="search")  # it begins with the first work, which no fork comes after


async def in_turn(work: Callable[[Unpack[Ts]], T], *given: *Ts) -> T:
    return await asyncio.get_running_loop().run_in_executor(_THREAD, work, *given)
