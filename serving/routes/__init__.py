"""One file = one group of endpoints with a `router`; this folder is scanned, so a new group is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter


def routers() -> Iterator[tuple[APIRouter, bool]]:
    """The router of every file here whose name does not start with an underscore, sorted by name, and whether the file
    sets IS_OPEN: such a group needs no token. All others need a token with the scope `read`, if login is required."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    groups = [importlib.import_module(f"{__name__}.{name}") for name in names]
    # The first matching path wins: groups with path parameters come last, or /books/{book_id} matches /books/search.
    for group in sorted(groups, key=lambda group: any("{" in route.path for route in group.router.routes)):
        yield group.router, getattr(group, "IS_OPEN", False)
