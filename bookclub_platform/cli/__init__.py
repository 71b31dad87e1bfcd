"""The command `bookclub`. Exit status: 0, 1 for a failure that is told in a sentence, 2 for wrong usage.

    bookclub COMMAND ...        or python -m bookclub_platform.cli COMMAND ...

Each file here whose name does not begin with _ is a group of commands, found by walking the folder. Each command
imports what it needs when it runs: `bookclub serve` works where Dagster is not installed.
"""

from __future__ import annotations

import importlib
import pkgutil

from bookclub_platform.cli._main import main

__all__ = ["main"]

for _found in pkgutil.iter_modules(__path__):
    if not _found.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_found.name}")
