"""One file = one group of endpoints with a `router`; this folder is walked, so a new group is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter


def routers() -> Iterator[tuple[APIRouter, bool]]:
    """The router of every file here whose name does not start with an underscore, by name, and whether the file says
    IS_OPEN: that whoever asks is answered. All others are for tokens with the scope `read`, where login is required."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            group = importlib.import_module(f"{__name__}.{module.name}")
            yield group.router, getattr(group, "IS_OPEN", False)
