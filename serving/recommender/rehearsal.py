"""The folder of a model -> the loaded model, after a test that it can recommend."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bookclub_platform.core.errors import ArtifactInvalid
from bookclub_platform.models import BookText, Grown, Recommendation, Tfidf, load_model

_WORDS = 50


def rehearsed(folder: Path) -> Tfidf:
    """The model in `folder`, after it has folded in a book and made lists: a fault must show here, not in a customer's
    request.

    Raises:
        ArtifactInvalid: its files are damaged, or it does not return valid lists.
    """
    model = load_model(folder)
    if not isinstance(model, Tfidf):
        raise ArtifactInvalid(f"The model in {folder} is a {model.name}, which cannot take in new books.")
    try:
        lists = _first_answers(model)
    except Exception as error:  # malicious files may raise anything
        raise ArtifactInvalid(f"The model in {folder} cannot answer ({type(error).__name__}: {error}).") from error
    for listed in lists:
        scores = np.array([near.score for near in listed])
        shares = np.array([reason.share for near in listed for reason in near.why])
        is_list = ((scores >= 0) & (scores <= 1)).all() and (np.diff(scores) <= 0).all()  # NaN fails both
        if not is_list or not np.isfinite(shares).all():
            raise ArtifactInvalid(f"The model in {folder} answers with scores that are not 0..1, highest first.")
    return model


def _first_answers(model: Tfidf) -> list[list[Recommendation]]:
    """The lists of the first trained book, and of a new book with words from the whole vocabulary."""
    terms = model.vocabulary_[: len(model.vocabulary_) - model.n_categories_]
    words = " ".join(terms[:: max(1, len(terms) // _WORDS)])
    new = BookText(max(model.book_ids[-1:].tolist(), default=0) + 1, words, words, "", model.vocabulary_[-1])
    grown = Grown(model).grow([new])
    return [grown.nearest(grown.probe([book_id]), 10) for book_id in (*model.book_ids[:1].tolist(), new.id)]
