"""The shop that comes with the platform: made-up books in the page structure of the real one.

    (books, seed) -> Catalogue -> pages -> HTTP

`generate` gives the books, `serve` the shop in the foreground, `running` the shop for the length of a test.
Alone: `python -m bookclub_platform.sandbox --books 1000 --seed 0 --port 8900`.
"""

from .catalogue import Catalogue, generate
from .server import running, serve

__all__ = ["Catalogue", "generate", "running", "serve"]
