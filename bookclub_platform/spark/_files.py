"""The folder that a Spark job leaves -> a `Counted`; both sides read here what lies in it.

FOLDER/books/*.parquet   a row a book, in any order: who it is, `places` of its terms and how often (`counts`) each
FOLDER/terms.parquet     the terms that are in enough books, ascending: the word that stands for each, in how many books
FOLDER/fault.txt         one sentence, if the job failed
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.errors import ModelError
from bookclub_platform.models._counts import Counted

BOOKS, TERMS, FAULT = "books", "terms.parquet", "fault.txt"


def read_counted(folder: Path) -> Counted:
    """What the job counted.

    Raises:
        ModelError: the books that came do not have the terms that were added up: a part of the folder is missing.
    """
    import pyarrow.parquet as pq
    from scipy.sparse import csr_matrix

    terms = pq.read_table(folder / TERMS)
    books = pq.read_table(folder / BOOKS)
    order = np.argsort(books["id"].to_numpy(), kind="stable")
    bounds = np.concatenate([[0], np.cumsum(_lengths(books["places"]))])
    matrix = csr_matrix(
        (_flat(books["counts"], np.float32), _flat(books["places"], np.int32), bounds),
        shape=(books.num_rows, terms.num_rows),
    )[order]
    matrix.sort_indices()  # sums are rounded in the order of their parts
    if not np.array_equal(matrix.getnnz(axis=0), terms["books"].to_numpy()):
        raise ModelError(
            f"What Spark counted does not add up: the {books.num_rows} books in {folder} are not those whose terms it "
            "counted. Fit again; on a cluster, see that all its machines have BOOKCLUB_HOME in common."
        )
    rest = books.drop_columns(["places", "counts"]).take(order)
    return Counted(
        rest["id"].to_numpy(),
        rest["title"].to_pylist(),
        rest["category"].to_pylist(),
        rest["category_name"].to_pylist(),
        rest["text_print"].to_numpy(),
        rest["title_print"].to_numpy(),
        matrix,
        terms["word"].to_pylist(),
        _flat(rest["encoded"], np.float32).reshape(len(order), -1) if "encoded" in rest.column_names else None,
    )


def _lengths(lists: Any) -> NDArray[np.int64]:
    import pyarrow.compute as pc

    return np.asarray(pc.list_value_length(lists).to_numpy(), dtype=np.int64)


def _flat(lists: Any, dtype: type[np.generic]) -> NDArray[Any]:
    """All entries of a column of lists, one after the other."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in lists.chunks]
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)
