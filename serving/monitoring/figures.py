"""The figures of each worker -> its own file in a shared folder -> the figures of all workers together.

    shared = SharedFigures(folder); shared.write(registry.collect()); shared.together(registry.collect())

prometheus_client's own multiprocess mode can neither remove series (ours have the data version as a label) nor use
figures that are collected when Prometheus scrapes. A file stays when its worker ends, so that counters never go back.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.core import Metric

log = logging.getLogger(__name__)

WRITTEN_EVERY_S = 1.0
_IS_OVER_AFTER_S = 10.0  # without a new file; the gauges of such a worker no longer count

_Labels = tuple[tuple[str, str], ...]
# Figures that are not summed over workers: each worker loads the same champions, and sees the same data.
_RULES: dict[str, Callable[[float, float], float]] = {
    "bookclub_model_swaps": max,
    "bookclub_model": max,
    "bookclub_model_fault": max,
    "bookclub_books_fault": max,
    "bookclub_data_version": min,
    "bookclub_database_up": min,
}


class SharedFigures:
    """The figures of the workers that write into `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{os.getpid()}.json"
        self._left_out: set[Path] = set()

    def write(self, families: Iterable[Metric]) -> None:
        """Write the figures of this process."""
        told = list(map(_told, families))
        fresh = self._own.with_suffix(f".{threading.get_ident()}.part")  # a scrape may write beside `share`
        fresh.write_text(json.dumps(told))
        fresh.replace(self._own)

    def together(self, own: Iterable[Metric]) -> Iterator[Metric]:
        """One family per name, with the sum over all workers, or what _RULES says. `own`: those of this process, which
        need no file."""
        found: dict[str, tuple[str, str, dict[tuple[str, _Labels], float]]] = {}
        for family, is_over in self._read(own):
            name, documentation, kind, samples = family
            if is_over and kind not in {"counter", "histogram"}:
                continue
            _, _, values = found.setdefault(name, (documentation, kind, {}))
            for sample, labels, value in samples:
                key = sample, tuple(sorted(labels.items()))
                join = min if sample.endswith("_created") else _RULES.get(name, _sum)
                values[key] = join(values[key], value) if key in values else value
        for name, (documentation, kind, values) in found.items():
            joined = Metric(name, documentation, kind)
            for (sample, labels), value in values.items():
                joined.add_sample(sample, dict(labels), value)
            yield joined

    def _read(self, own: Iterable[Metric]) -> Iterator[tuple[Any, bool]]:
        for family in own:
            yield _told(family), False
        for path in sorted(set(self._folder.glob("*.json")) - {self._own}):
            try:
                is_over = time.time() - path.stat().st_mtime > _IS_OVER_AFTER_S
                families = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                if path not in self._left_out:
                    log.warning("The figures of one worker are left out, %s cannot be read: %s", path, error)
                self._left_out.add(path)
                continue
            for family in families:
                yield family, is_over


def _told(family: Metric) -> tuple[str, str, str, list[tuple[str, dict[str, str], float]]]:
    samples = [(sample.name, sample.labels, sample.value) for sample in family.samples]
    return family.name, family.documentation, family.type, samples


def _sum(one: float, other: float) -> float:
    return one + other
