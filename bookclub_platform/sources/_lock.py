"""Folder of a category -> a lock for one crawl at a time, across all processes on the machine.

    with only_crawl(folder / "books_toscrape" / "travel", crawl_id, wait_s=60):
        ...

It is an operating-system lock (flock on the file `.lock`), released when the holding process ends, however it ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from bookclub_platform.core.errors import CrawlUnderWay

_POLL_S = 0.1


@contextmanager
def only_crawl(folder: Path, crawl_id: str, wait_s: float) -> Iterator[None]:
    """Hold `folder`; wait up to `wait_s` seconds for another crawl to end.

    Raises:
        CrawlUnderWay: it did not end in time; the text says who holds the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+", encoding="utf-8") as file:
        _take(file, folder, wait_s)
        file.truncate(0)
        file.write(f"crawl {crawl_id} in process {os.getpid()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
        file.flush()
        yield


def _take(file: IO[str], folder: Path, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                file.seek(0)
                holder = file.read() or "another crawl"
                raise CrawlUnderWay(
                    str(folder), f"is held by {holder}. Waited {wait_s:g} s; wait for it to end, or end it."
                ) from error
        time.sleep(_POLL_S)
