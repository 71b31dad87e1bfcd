"""One file = one group of endpoints with a `router`; this folder is walked, so a new group is one new file."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi import APIRouter


def routers() -> Iterator[APIRouter]:
    """The router of every file here whose name does not start with an underscore, by name."""
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        if not module.name.startswith("_"):
            router: APIRouter = importlib.import_module(f"{__name__}.{module.name}").router
            yield router
