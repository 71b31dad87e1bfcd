"""The operator's hand on the models: a version's number -> the champion that the API takes up within seconds.

    settings = load_settings()
    for version in listed(settings): print(version.number, version.score, version.state)
    promote(settings, "7", why="judged by readers"); rollback(settings, why="complaints")

Works on the registry of MLFLOW_TRACKING_URI, else on the embedded one. Each act is kept with the version in MLflow
(who, when, why) and goes to the log `bookclub.audit`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from getpass import getuser
from pathlib import Path

from bookclub_platform.core.errors import NoChampion
from bookclub_platform.core.settings import Settings
from bookclub_platform.models import ModelVersion, Registry, Tfidf, load_model
from bookclub_platform.models._registry import PROMOTED_AT, ROLLED_BACK_AT, decided

NAME = Tfidf.name


@dataclass(frozen=True, slots=True)
class Listed:
    """One version.

    Attributes:
        score: what the gate's judge gave it when it was trained; None if it was not judged.
        state: `champion`, `rolled back`, `was champion`, or empty.
        decision: the last that was decided about it, in a sentence, and by whom.
    """

    number: str
    registered_at: datetime
    score: float | None
    state: str
    decision: str


def listed(settings: Settings, most: int = 20) -> list[Listed]:
    """The newest `most` versions, newest first, and the champion however old it is."""
    registry = _registry(settings)
    versions = registry.versions(NAME)
    try:
        champion = registry.champion(NAME).version
    except NoChampion:
        champion = ""
    shown = [version for at, version in enumerate(versions) if at < most or version.version == champion]
    return [_listed(registry, version, version.version == champion) for version in shown]


def promote(settings: Settings, number: str, why: str) -> ModelVersion:
    """Make the version of that number the champion.

    Raises:
        NoChampion: there is none of that number.
        ArtifactInvalid: its files are gone or damaged: the champion stays.
    """
    registry = _registry(settings)
    version = registry.version(NAME, number)
    _check(registry, version)
    registry.promote(version, why, by=getuser())
    return version


def rollback(settings: Settings, why: str) -> tuple[ModelVersion, ModelVersion]:
    """Make the champion before this one the champion again -> (the new champion, the one that was).

    Raises:
        NoChampion: there is no champion, or none was before it.
        ArtifactInvalid: the files of the one before are gone or damaged: the champion stays.
    """
    registry = _registry(settings)
    before, _ = registry.before_champion(NAME)
    _check(registry, before)
    return registry.rollback(NAME, why, by=getuser())


def _registry(settings: Settings) -> Registry:
    if settings.mlflow_tracking_uri:
        return Registry(settings.mlflow_tracking_uri)
    from bookclub_platform.local.database import open_databases  # needs what the serving image does not have

    return Registry(open_databases(settings).mlflow)


def _check(registry: Registry, version: ModelVersion) -> None:
    """The API would refuse a damaged one and serve on with the old: better to say so to who asks for it."""
    with tempfile.TemporaryDirectory() as folder:
        load_model(registry.download(version, Path(folder)))


def _listed(registry: Registry, version: ModelVersion, is_champion: bool) -> Listed:
    tags = version.tags
    state = "rolled back" if tags.get(ROLLED_BACK_AT) else "was champion" if tags.get(PROMOTED_AT) else ""
    return Listed(
        number=version.version,
        registered_at=version.registered_at,
        score=registry.figures(version).get("challenger_score"),
        state="champion" if is_champion else state,
        decision=decided(version),
    )
