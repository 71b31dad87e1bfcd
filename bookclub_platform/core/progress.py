"""The progress of a long operation: its steps report here, and a terminal, a log or nobody displays it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def advance(self, stage: str, item: str) -> None:
        """One `item` (a category, a model) of `stage` (`crawl`, `clean`, `load`, `train`) is done."""


class NoProgress:
    """Displays nothing."""

    def advance(self, stage: str, item: str) -> None:
        return None
