"""serving/process/off_loop.py: what is done in turn, and what need not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from serving.process.off_loop import in_long_turn, in_turn


def test_long_work_is_done_one_at_a_time_in_the_order_in_which_it_came() -> None:
    done: list[int] = []
    at_once: list[bool] = []
    running = threading.Semaphore(1)

    def work(number: int) -> int:
        at_once.append(running.acquire(blocking=False))
        threading.Event().wait(0.01)
        done.append(number)
        running.release()
        return number

    async def all_of_it() -> list[int]:
        return await asyncio.gather(*(in_long_turn(work, number) for number in range(8)))

    assert asyncio.run(all_of_it()) == done == list(range(8)) and all(at_once)


def test_short_work_does_not_wait_for_long_work_nor_the_event_loop_for_either() -> None:
    ended = threading.Event()

    async def all_of_it() -> bool:
        long = asyncio.create_task(in_long_turn(ended.wait, 30))
        assert await in_turn(sum, [1, 2]) == 3 and not long.done()
        ended.set()
        return await long

    assert asyncio.run(all_of_it())


@pytest.mark.parametrize("turn", [in_turn, in_long_turn])
def test_an_error_is_raised_where_it_was_asked_for_and_the_next_is_done(turn: Callable[..., Any]) -> None:
    async def all_of_it() -> int:
        with pytest.raises(ValueError, match="invalid literal"):
            await turn(int, "not a number")
        return int(await turn(int, "7"))

    assert asyncio.run(all_of_it()) == 7
