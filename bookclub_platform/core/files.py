"""A file that its readers see whole, the old one or the new one, whatever happens to who writes it.

with replaced(path) as file:
    file.write(b"...")
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def replaced(path: Path, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A new file, created with `mode`, that takes the place of `path` at the end of the block. After any error `path`
    is as it was, and nothing is left beside it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")  # two processes may write the same file
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
