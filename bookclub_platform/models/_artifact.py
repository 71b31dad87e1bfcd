"""A folder of plain files -> sealed with a manifest -> opened only if every byte is unchanged.

    seal(folder, "tfidf_model", 1, parameters, counts)       writes manifest.json for the files in the folder
    manifest = open_sealed(folder, "tfidf_model", 1, names)  hashes every file
    idf = read_array(folder / "idf.npy", np.float32)         memory-mapped

A seal detects damage, not tampering: whoever can write the files can write the manifest. So a model still validates
what it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence, Set
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from bookclub_platform.core.errors import ArtifactInvalid

MANIFEST = "manifest.json"
_MENDING = "Remove that folder to have it fetched again, or train and publish a new version."
# What NumPy may raise on a malicious header, which it parses as Python literals.
_UNREADABLE = (OSError, ValueError, TypeError, OverflowError, MemoryError, RecursionError, SyntaxError, TokenError)
_LIST_OF_TEXT = TypeAdapter(list[str])
_LINES = TypeAdapter(Literal[True])
_LARGE_BYTES = 2**21  # from this size on, a list is memory-mapped instead of read into a Python list
_AT_ONCE = 10_000


class Seal(BaseModel):
    """A file as it was written: its length in bytes and its hex SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """The content of `manifest.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: str
    version: int
    parameters: dict[str, Any]
    counts: dict[str, int]
    files: dict[str, Seal]


def invalid(path: Path, fault: str) -> ArtifactInvalid:
    """The error for `path`, a file or folder of a model, with this `fault`."""
    return ArtifactInvalid(f"The model file {path} {fault}. {_MENDING}")


def seal(folder: Path, format: str, version: int, parameters: dict[str, Any], counts: dict[str, int]) -> None:
    """Write the manifest of all files in `folder`."""
    files = {path.name: _seal_of(path) for path in sorted(folder.iterdir())}
    manifest = Manifest(format=format, version=version, parameters=parameters, counts=counts, files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")


def open_sealed(folder: Path, format: str, version: int, names: Set[str]) -> Manifest:
    """Verify and return the manifest of `folder`: its format and version match, it names exactly the files `names`,
    and each file is as it was written.

    Raises:
        ArtifactInvalid: a file or the manifest is missing, unreadable or altered, or the format is another one.
    """
    manifest = read_manifest(folder)
    if (manifest.format, manifest.version, set(manifest.files)) != (format, version, names):
        raise invalid(folder, f"is not a {format} of version {version} with its files")
    for name, expected in manifest.files.items():
        try:
            found = _seal_of(folder / name)
        except OSError as error:
            raise invalid(folder / name, f"cannot be read ({error.strerror})") from error
        if found != expected:
            raise invalid(folder / name, f"is not the one that was saved ({found.size} of {expected.size} bytes)")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of `folder` without checking the files.

    Raises:
        ArtifactInvalid: it is missing, or not a manifest.
    """
    path = folder / MANIFEST
    _refuse_what_is_no_file(path)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise invalid(path, f"cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise invalid(path, f"is no manifest: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}") from error


def read_array(path: Path, dtype: type[np.generic], ndim: int = 1) -> NDArray[Any]:
    """The array in `path`, memory-mapped and read-only. It must have exactly this `dtype` and number of dimensions;
    np.floating stands for single or double precision.

    Raises:
        ArtifactInvalid: it is something else.
    """
    try:
        # Not np.load, which would also accept a .zip or a pickle.
        array = np.lib.format.open_memmap(str(path), mode="r")  # a Path makes it look up every parent folder
    except _UNREADABLE as error:
        raise invalid(path, f"is no array: {error}") from error
    dtypes = (np.float32, np.float64) if dtype is np.floating else (dtype,)
    if array.ndim != ndim or array.dtype not in dtypes:
        raise invalid(path, f"has shape {array.shape} of {array.dtype}, and must be {ndim}-d of {dtype.__name__}")
    return np.asarray(array)  # a plain view of the same pages: slicing an np.memmap costs ten times as much


def read_list(path: Path) -> Sequence[str]:
    """The list of strings in the JSON file `path`. A large file, with one item per line, is read by item on access.

    Raises:
        ArtifactInvalid: it is something else.
    """
    try:
        if path.stat().st_size < _LARGE_BYTES:
            return _LIST_OF_TEXT.validate_json(path.read_bytes(), strict=True)
        return _Lines(path)
    except OSError as error:
        raise invalid(path, f"cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise invalid(path, f"is no list of text: {error.errors()[0]['msg']}") from error


class _Lines(Sequence[str]):
    """The items of a JSON list of strings, one per line, memory-mapped: a million Python str take 60 MB per process.

    Raises ValidationError for anything else.
    """

    def __init__(self, path: Path) -> None:
        self._text = np.asarray(np.memmap(path, mode="r"))
        self._ends = np.flatnonzero(self._text == ord("\n")).astype(np.int64 if len(self._text) >= 2**31 else np.int32)
        brackets = [self._text[: self._ends[0]], self._text[self._ends[-2] + 1 :]] if len(self._ends) > 1 else []
        _LIST_OF_TEXT.validate_json(b"".join(part.tobytes() for part in brackets), strict=True)
        for start in range(0, len(self), _AT_ONCE):  # parsing everything at once would take those 60 MB after all
            end = min(start + _AT_ONCE, len(self))
            part = self._text[self._ends[start] + 1 : self._ends[end]].tobytes()
            items = _LIST_OF_TEXT.validate_json(b"[%b]" % part.removesuffix(b","), strict=True)
            # An item cannot contain a line break, so if there are as many items as lines, each has a line of its own.
            _LINES.validate_python(len(items) == end - start)

    def __len__(self) -> int:
        return len(self._ends) - 2

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[place] for place in range(len(self))[at]]
        place = range(len(self))[at]
        line = self._text[self._ends[place] + 1 : self._ends[place + 1]]
        item: str = json.loads(line.tobytes().removesuffix(b","))
        return item

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # like a list


def _seal_of(path: Path) -> Seal:
    _refuse_what_is_no_file(path)
    with path.open("rb") as file:
        return Seal(size=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _refuse_what_is_no_file(path: Path) -> None:
    """A symlink may lead anywhere, and reading a pipe may never end. The caller reports a path that does not exist."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise invalid(path, "is no plain file")
