"""A Tfidf -> a folder of plain files -> the same Tfidf, validated and with memory-mapped arrays.

    save(model, folder); model = load(Tfidf, folder)

An artifact of an older release lacks the files that later releases added. Their attributes are then None, or 0, so
that the older artifact can still be read.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.errors import ModelError
from bookclub_platform.models import _artifact
from bookclub_platform.models._index import Compressed, InvertedIndex
from bookclub_platform.models._lists import Lists
from bookclub_platform.models._search import SEARCH_ARRAYS, SearchIndex
from bookclub_platform.models._segments import SEGMENT_ARRAYS, Segments
from bookclub_platform.models._stems import STEM_ARRAYS, Stems

if TYPE_CHECKING:
    from bookclub_platform.models.tfidf import Tfidf

    _Tfidf = TypeVar("_Tfidf", bound=Tfidf)

_VERSION = 1
_EMBEDDING_ARRAYS: dict[str, type[np.generic]] = {
    "embedding": np.float32,
    "embedding_mean": np.float32,
    "embedding_components": np.float32,
}
_LIST_ARRAYS: dict[str, type[np.generic]] = {"nearest.ids": np.int32, "nearest.scores": np.floating}
_TABLES = {"embedding", "embedding_components", *_LIST_ARRAYS, *SEGMENT_ARRAYS}
_ARRAYS: dict[str, type[np.generic]] = {
    "book_ids": np.int64,
    "works": np.int32,
    "idf": np.float32,
    "by_book.indptr": np.int64,
    "by_book.indices": np.int32,
    "by_book.data": np.float32,
    "by_column.indptr": np.int64,
    "by_column.indices": np.int32,
    "by_column.data": np.float32,
}
# Fingerprints of the books at fit time: 0 in a model of an earlier release, which does not store them.
_PRINT_ARRAYS: dict[str, type[np.generic]] = {"prints": np.int64, "title_prints": np.int64}
_VOCABULARY = "vocabulary.json"


def save(model: Tfidf, folder: Path) -> None:
    """See `Model.save`."""
    folder.mkdir(parents=True, exist_ok=True)
    for array_name, array in _arrays(model).items():
        np.save(folder / f"{array_name}.npy", array, allow_pickle=False)
    text = json.dumps(list(model.vocabulary_), ensure_ascii=False, indent=0)
    (folder / _VOCABULARY).write_text(text + "\n", encoding="utf-8")
    _artifact.seal(folder, model.name, _VERSION, model.parameters, model.counts)


def _arrays(model: Tfidf) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"book_ids": model.book_ids, "works": model.works_, "idf": model.idf_}
    for side in ("by_book", "by_column"):
        arrays |= {f"{side}.{part}": array for part, array in getattr(model.index_, side)._asdict().items()}
    embedding = (model.embedding_, model.embedding_mean_, model.embedding_components_)
    arrays |= {key: array for key, array in zip(_EMBEDDING_ARRAYS, embedding, strict=True) if array is not None}
    arrays |= {"prints": model.prints_, "title_prints": model.title_prints_}
    if model.lists_ is not None:
        arrays |= dict(zip(_LIST_ARRAYS, model.lists_, strict=True))
    arrays |= dict(zip(STEM_ARRAYS, model.stems, strict=True))
    if model.search_ is not None:
        arrays |= model.search_.arrays()
    if model.segments_ is not None:
        arrays |= dict(zip(SEGMENT_ARRAYS, model.segments_, strict=True))
    return arrays


def nbytes(model: Tfidf) -> int:
    """See `Model.nbytes`."""
    return sum(array.nbytes for array in _arrays(model).values()) + sum(map(len, model.vocabulary_))


def load(kind: type[_Tfidf], folder: Path) -> _Tfidf:
    """See `Model.load`."""
    stated = _artifact.read_manifest(folder)
    optional = [{key: dtype} for key, dtype in _EMBEDDING_ARRAYS.items()]
    optional += [_LIST_ARRAYS, _PRINT_ARRAYS, STEM_ARRAYS, SEARCH_ARRAYS, SEGMENT_ARRAYS]
    dtypes = dict(_ARRAYS)
    for group in optional:
        dtypes |= group if f"{min(group)}.npy" in stated.files else {}
    manifest = _artifact.open_sealed(folder, kind.name, _VERSION, {_VOCABULARY, *(f"{key}.npy" for key in dtypes)})
    try:
        model = kind(**manifest.parameters)
    except ModelError as error:
        raise _artifact.invalid(folder, f"has parameters that a {kind.name} cannot have. {error}") from error
    arrays = {
        key: _artifact.read_array(folder / f"{key}.npy", dtype, ndim=2 if key in _TABLES else 1)
        for key, dtype in dtypes.items()
    }
    _fill(model, arrays)
    model.vocabulary_ = _artifact.read_list(folder / _VOCABULARY)
    if min(STEM_ARRAYS) in arrays:
        model.stems = Stems(*(arrays[key] for key in STEM_ARRAYS))
    model.n_categories_ = manifest.counts.get("categories", -1)
    fault = _fault(model)
    if fault or model.counts != manifest.counts:
        raise _artifact.invalid(folder, f"does not fit together: {fault or 'the counts differ'}")
    return model


def _fill(model: Tfidf, arrays: dict[str, NDArray[Any]]) -> None:
    model.embedding_, model.embedding_mean_, model.embedding_components_ = map(arrays.get, _EMBEDDING_ARRAYS)
    model.book_ids, model.works_, model.idf_ = arrays["book_ids"], arrays["works"], arrays["idf"]
    unknown = np.zeros(len(model.book_ids), dtype=np.int64)
    model.prints_, model.title_prints_ = (arrays.get(key, unknown) for key in _PRINT_ARRAYS)
    by_book, by_column = (
        Compressed(*(arrays[f"{side}.{part}"] for part in Compressed._fields)) for side in ("by_book", "by_column")
    )
    model.index_ = InvertedIndex(by_book, by_column)
    model.lists_ = Lists(*(arrays[key] for key in _LIST_ARRAYS)) if min(_LIST_ARRAYS) in arrays else None
    model.search_ = SearchIndex.from_arrays(arrays) if min(SEARCH_ARRAYS) in arrays else None
    has_segments = min(SEGMENT_ARRAYS) in arrays
    model.segments_ = Segments(*(arrays[key] for key in SEGMENT_ARRAYS)) if has_segments else None
    model.figures_ = {}


def _fault(model: Tfidf) -> str | None:
    """Why the loaded model cannot be used, or None."""
    n_books, n_columns = len(model.book_ids), len(model.vocabulary_)
    if n_books and (model.book_ids[0] < 0 or np.any(np.diff(model.book_ids) <= 0)):
        return "the ids of the books do not ascend from 0 or more"
    if len(model.works_) != n_books:
        return f"{len(model.works_)} works for {n_books} books"
    if len(model.prints_) != n_books or len(model.title_prints_) != n_books:
        return f"{len(model.prints_)} and {len(model.title_prints_)} fingerprints for {n_books} books"
    if len(model.idf_) != n_columns:
        return f"{len(model.idf_)} weights for {n_columns} columns"
    # NaN fails the comparison. A weight above that of a word in a single book would outweigh every other.
    if not np.all((model.idf_ >= 0) & (model.idf_ <= 1.001 + np.log1p(n_books))):
        return "weights that are not those of any word"
    if not 0 <= model.n_categories_ <= n_columns:
        return f"{model.n_categories_} categories among {n_columns} columns"
    return (
        model.index_.by_book.fault(n_books, n_columns)
        or model.index_.by_column.fault(n_columns, n_books)
        or _embedding_fault(model, n_books, n_columns)
        or (model.lists_.fault(n_books) if model.lists_ is not None else None)
        or (model.stems.fault(n_columns - model.n_categories_) if "stems" in vars(model) else None)
        or (model.search_.fault(n_books, n_columns) if model.search_ is not None else None)
        or _segments_fault(model, n_columns)
    )


def _embedding_fault(model: Tfidf, n_books: int, n_columns: int) -> str | None:
    if model.embedding_ is None or model.embedding_mean_ is None:
        has_part = model.embedding_ is not model.embedding_mean_ or model.embedding_components_ is not None
        return "a part of an embedding" if has_part else None
    if model.embedding == "none" or n_books > model.embedding_up_to:
        return f"embeddings of {n_books} books, with {model.embedding!r} for up to {model.embedding_up_to}"
    shape = (n_books, len(model.embedding_mean_))
    if model.embedding_.shape != shape:
        return f"embeddings of shape {model.embedding_.shape} for {n_books} books"
    components = model.embedding_components_
    if (components is not None) != (model.embedding == "lsa"):
        return f"components of `lsa`, or none, for an embedding {model.embedding!r}"
    if components is not None and components.shape != (shape[1], n_columns):
        return f"components of shape {components.shape} for {n_columns} columns"
    vectors = (model.embedding_, model.embedding_mean_[None], components)
    return None if all(_are_unit(table) for table in vectors if table is not None) else "embeddings longer than 1"


def _are_unit(table: NDArray[np.float32]) -> bool:
    """Whether no row is longer than 1. NaN and infinity fail the comparison."""
    with np.errstate(over="ignore"):
        return bool(np.all(np.einsum("ij,ij->i", table, table) <= 1.001))


def _segments_fault(model: Tfidf, n_columns: int) -> str | None:
    if model.segments_ is None:
        return None
    if model.embedding_ is None:
        return "segments without an embedding"
    return model.segments_.fault(model.embedding_.shape[1], n_columns)
