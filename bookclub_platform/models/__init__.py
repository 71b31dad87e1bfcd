"""The public interface of the models: fit or load one, publish it, fetch the champion.

    model = Tfidf().fit(rows)                           rows: list[BookText]
    version = Registry(uri).publish(model, ...); Registry(uri).promote(version)
    model = load_model(registry.download(registry.champion("tfidf_model"), folder))
    model.recommend(7, limit=10)                        list[Recommendation]

A new model is a new file in this folder with one class that implements `Model`; files that begin with _ are internal.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path
from typing import Any

from bookclub_platform.models._artifact import invalid, read_manifest
from bookclub_platform.models._contract import BookText, FoldableModel, Model, Reason, Recommendation
from bookclub_platform.models._gate import Decision, Judgement, decide
from bookclub_platform.models._grown import Grown, Probe
from bookclub_platform.models._health import ListHealth, list_health
from bookclub_platform.models._judge import PROXIES, Judge
from bookclub_platform.models._lists import Allowed
from bookclub_platform.models._passages import Found, Piece, find
from bookclub_platform.models._readers import Readers, Step
from bookclub_platform.models._registry import ModelVersion, Registry
from bookclub_platform.models._registry_http import RegistryReader, reader
from bookclub_platform.models._search import SearchIndex
from bookclub_platform.models.tfidf import Tfidf

__all__ = [
    "MODELS",
    "PROXIES",
    "Allowed",
    "BookText",
    "Decision",
    "FoldableModel",
    "Found",
    "Grown",
    "Judge",
    "Judgement",
    "ListHealth",
    "Model",
    "ModelVersion",
    "Piece",
    "Probe",
    "Readers",
    "Reason",
    "Recommendation",
    "Registry",
    "RegistryReader",
    "SearchIndex",
    "Step",
    "Tfidf",
    "decide",
    "find",
    "list_health",
    "load_model",
    "reader",
]


def _find_models() -> dict[str, type[Model]]:
    files = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    modules = [importlib.import_module(f"{__name__}.{file}") for file in files]
    classes: list[Any] = [
        member
        for module in modules
        for member in vars(module).values()
        if inspect.isclass(member) and member.__module__ == module.__name__ and hasattr(member, "recommend")
    ]
    return {found.name: found for found in classes}


MODELS = _find_models()
"""The class of each model by its name, which is also the format that its manifest states."""


def load_model(folder: Path | str) -> Model:
    """Load the model saved in `folder`, of any class in `MODELS`.

    Raises:
        ArtifactInvalid: the files are damaged, or belong to a model that this release does not have.
    """
    folder = Path(folder)
    found = read_manifest(folder).format
    if found not in MODELS:
        raise invalid(folder, f"is of the format {found!r}, and this release reads {', '.join(MODELS)}")
    return MODELS[found].load(folder)
