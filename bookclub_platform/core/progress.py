"""How far a long walk is: the steps report here, and a terminal, a log or nobody looks on."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def advance(self, stage: str, item: str) -> None:
        """One `item` (a category, a model) of `stage` (`crawl`, `clean`, `load`, `train`) is done."""


class NoProgress:
    """Nobody looks on."""

    def advance(self, stage: str, item: str) -> None:
        return None
