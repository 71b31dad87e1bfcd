"""Imported in the process that workers are forked from -> all that they would import by themselves, once for all.

What is imported is the same in each worker, and 60 MB; nothing runs yet that a fork could break: no thread of Python,
no connection, no file. Frozen, or the first search for garbage in a worker would write to all of it, and so copy it.
"""

from __future__ import annotations

import gc

from bookclub_platform.core.passwords import MIN_LENGTH, weakness
from serving.app import create_app
from serving.process import malloc
from serving.routes import routers

__all__ = ["create_app"]

list(routers())
weakness("nobody", "a" * MIN_LENGTH)  # makes its lists of words: 5 MB
gc.collect()
gc.freeze()
malloc.trim()
