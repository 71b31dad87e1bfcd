"""What a model is: rows of text -> fit -> recommend -> a folder of plain files -> load -> recommend.

A model is one file in this folder with one class that implements `Model`. Its saved form holds arrays (.npy), JSON and
a manifest with hashes, never a pickle: loading a pickle runs code, and breaks when its module is renamed. `load` and
`recommend` need only NumPy, so that serving stays light; `fit` imports what it needs itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray


class BookText(NamedTuple):
    """What a content model may know about a book, as `core.tables.select_training_rows` returns it."""

    id: int
    title: str
    description: str | None
    category: str
    category_name: str


class Reason(NamedTuple):
    """One thing that two books share, and its part of the score; the shares of a list of reasons add up to the score.

    Attributes:
        kind: `term`, `category`, `embedding` (what both are about, beyond their words), or `terms`: all others as one.
        value: the term as readers would write it, the category's name, or a few words for readers.
    """

    kind: str
    value: str
    share: float


class Recommendation(NamedTuple):
    """A neighbour of a book. `score` is 0..1, higher is nearer; `why` holds the largest reasons first, and sums up
    the minor ones as one last reason."""

    book_id: int
    score: float
    why: list[Reason]


class Model(Protocol):
    """Attributes:
    name: the model's name in the registry.
    book_ids: (n,) int64, ascending: the books it can recommend.
    """

    name: str
    book_ids: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """The size of what was learned, the same in memory and on disk."""

    def fit(self, rows: Sequence[BookText]) -> Self:
        """Learn from `rows` and return self."""

    def recommend(self, book_id: int, limit: int) -> list[Recommendation]:
        """The `limit` nearest other books, nearest first, never the book itself; fewer if fewer share anything.

        Raises:
            KeyError: the model does not know `book_id`.
        """

    def save(self, folder: Path) -> None:
        """Write the files and `manifest.json` (format, counts, sha256 of each file) into the empty `folder`."""

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load the model saved in `folder`, with memory-mapped arrays.

        Raises:
            ArtifactInvalid: a file is missing, altered, of another format, or does not fit the others.
        """


class FoldableModel(Model, Protocol):
    """A model into whose space other books can be put without fitting again."""

    def fold(self, rows: Sequence[BookText]) -> Self:
        """A model over `rows` in the learned space; nothing is learned from them."""
