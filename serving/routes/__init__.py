"""One file = one group of endpoints with a `router`; this folder is walked, so a new group is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter


def routers() -> Iterator[tuple[APIRouter, bool]]:
    """The router of every file here whose name does not start with an underscore, by name, and whether the file says
    IS_OPEN: that whoever asks is answered. All others are for tokens with the scope `read`, where login is required."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    groups = [importlib.import_module(f"{__name__}.{name}") for name in names]
    # The first path that fits a request gets it: those with a parameter last, or /books/{book_id} takes /books/search.
    for group in sorted(groups, key=lambda group: any("{" in route.path for route in group.router.routes)):
        yield group.router, getattr(group, "IS_OPEN", False)
