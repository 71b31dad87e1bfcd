"""glibc's malloc -> told what to give back to the system, by itself and now; nothing elsewhere.

limit()                     before there are threads
trim()                      after much work, at once
"""

from __future__ import annotations

import ctypes
import sys

# The numbers of mallopt's parameters in malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
# What is larger comes from the system and goes back to it. More than the columns of a million books, of which each
# page would be fetched anew for each question; less than the 19 MB of a hash of a password, that by itself glibc keeps
# for each thread which has made one.
_LARGE = 16 * 2**20
_ARENAS = 2  # by itself glibc makes eight for each core, and each thread leaves holes in its own


def limit() -> None:
    """Keep little of what is free, for as long as the process lives."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in ((_TRIM_THRESHOLD, _LARGE), (_MMAP_THRESHOLD, _LARGE), (_ARENA_MAX, _ARENAS)):
            libc.mallopt(parameter, value)


def trim() -> None:
    """Give back what was taken for the moment and is free again: by itself glibc keeps up to 64 MB of it, and in each
    thread's part of the heap what lies below the last thing in use."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
