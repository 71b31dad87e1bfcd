"""Imported in the process that workers are forked from -> everything that they would import themselves, only once.

The imports are the same in each worker and take 60 MB. Nothing runs yet that a fork could break: no Python thread, no
connection, no file. `gc.freeze()` keeps their memory shared: otherwise the first garbage collection in a worker would
write to all of it, and so copy it.
"""

from __future__ import annotations

import gc

from bookclub_platform.core.passwords import MIN_LENGTH, weakness
from serving.app import create_app
from serving.process import malloc
from serving.routes import routers

__all__ = ["create_app"]

list(routers())
weakness("nobody", "a" * MIN_LENGTH)  # builds its word lists: 5 MB
gc.collect()
gc.freeze()
malloc.trim()
