"""What is told of the folder that the server writes to."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from serving.process import disk
from serving.process.disk import Disk


def test_a_folder_that_cannot_be_written_to_or_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "LEAST_FREE_BYTES", 1)
    assert asyncio.run(Disk(tmp_path).fault()) is None and not list(tmp_path.iterdir())
    told = asyncio.run(Disk(tmp_path / "gone").fault())
    assert told is not None and "gone cannot be written to: No such file" in told
    monkeypatch.setattr(disk, "LEAST_FREE_BYTES", 2**60)
    told = asyncio.run(Disk(tmp_path).fault())
    assert told is not None and f"MB are free in {tmp_path}, of the" in told


def test_a_disk_that_hangs_holds_nobody_up_and_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, asked = threading.Event(), []

    def write(path: Path, _: bytes) -> int:
        asked.append(path)
        hangs.wait(20)
        return 0

    monkeypatch.setattr(disk, "PATIENCE_S", 0.05)
    monkeypatch.setattr(Path, "write_bytes", write)

    async def ask() -> list[str | None]:
        watched = Disk(tmp_path)
        told = [await watched.fault() for _ in range(3)]
        hangs.set()
        while watched._looking is not None and not watched._looking.done():
            await asyncio.sleep(0.01)
        return [*told, await watched.fault()]

    *during, after = asyncio.run(ask())
    assert all(told is not None and "did not answer" in told for told in during) and len(asked) == 1
    assert after is None or "MB are free" in after
