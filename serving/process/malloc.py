"""glibc's malloc -> returns more free memory to the system, from now on or at once; no effect with another malloc.

limit()                     from now on: call it before threads start
trim()                      at once: call it after much work
"""

from __future__ import annotations

import ctypes
import sys

# The numbers of mallopt's parameters in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# Larger blocks come directly from the system and return to it. More than the columns of a million books, whose pages
# would otherwise be fetched anew for each request; less than the 19 MB of a password hash, which glibc by default keeps
# for each thread that has computed one.
_LARGE = 16 * 2**20
_ARENAS = 2  # by default glibc makes eight for each core, and each thread leaves holes in its own


def limit() -> None:
    """Keep little free memory, for as long as the process lives."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in ((_TRIM_THRESHOLD, _LARGE), (_MMAP_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS)):
            libc.mallopt(parameter, value)


def trim() -> None:
    """Return memory that was used for a moment and is free again: by default glibc keeps up to 64 MB of it, and in each
    thread's part of the heap everything below the last block in use."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
