"""A fitted model -> an MLflow run and a registered version -> the alias `champion` -> a local folder of files.

    registry = Registry("http://127.0.0.1:5000")
    version = registry.publish(model, parameters, metrics, tags, artifact_root=None)
    registry.promote(version)
    folder = registry.download(registry.champion("tfidf_model"), Path(".bookclub/serving/models"))

The only module that imports mlflow, and only when it is used. Serving downloads models over plain HTTP:
_registry_http.py.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bookclub_platform.core import audit
from bookclub_platform.core.errors import ArtifactInvalid, DatabaseUnavailable, NoChampion, RegistryUnavailable
from bookclub_platform.models._contract import Model

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

CHAMPION = "champion"
PROMOTED_AT, PROMOTED_WHY, PROMOTED_BY = "promoted_at", "promoted_why", "promoted_by"
ROLLED_BACK_AT, ROLLED_BACK_WHY = "rolled_back_at", "rolled_back_why"
HELD_BY = "held_by"
GATE = "the gate"
DATABASE_TIMEOUT_S = 10.0

ARTIFACT_PATH = "model"
# MLflow's own defaults would block a caller for minutes: 8 tries of 120 s each. The operator's settings take priority.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A version of a model in the registry. `registered_at` is in UTC; `tags` are those of the version."""

    name: str
    version: str
    run_id: str
    registered_at: datetime
    tags: dict[str, str] = field(compare=False)  # each promotion adds some; the version stays the same

    @property
    def label(self) -> str:
        """For display, headers and metrics: `tfidf_model/3`."""
        return f"{self.name}/{self.version}"

    @property
    def key(self) -> tuple[str, str]:
        """The version number alone is not enough: in a registry that was deleted and recreated, it is another model."""
        return self.version, self.run_id


class Registry:
    """MLflow at `tracking_uri`: an HTTP address, or, where the full MLflow is installed, a database
    (`postgresql+psycopg2://...`).

    Every method raises RegistryUnavailable within seconds if MLflow does not respond.
    """

    def __init__(self, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri

    def publish(
        self,
        model: Model,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifact_root: str | None,
        pages: Mapping[str, str] | None = None,
    ) -> ModelVersion:
        """Log one finished run in the experiment named after the model, and register a new version; no alias moves.

        Args:
            tags: set on the run and on the version.
            artifact_root: URI of the folder for the experiment's files, used only when the experiment is created; None
                leaves the choice to the server.
            pages: file name -> HTML, shown beside the model in the run's artifacts.
        """
        with self._asking("publish"):
            run = self._client.create_run(self._experiment(model.name, artifact_root), tags=dict(tags))
            run_id = run.info.run_id
            try:
                self._log(run_id, parameters, metrics)
                for name, page in (pages or {}).items():
                    self._client.log_text(run_id, page, f"pages/{name}")
                with tempfile.TemporaryDirectory() as folder:
                    model.save(Path(folder))
                    self._client.log_artifacts(run_id, folder, ARTIFACT_PATH)
                source = f"{run.info.artifact_uri}/{ARTIFACT_PATH}"
                version = self._create_version(model.name, source, run_id, tags)
                self._client.update_run(run_id, name=f"version {version.version}")  # else MLflow makes up a name
                self._client.set_terminated(run_id, "FINISHED")
            except BaseException as error:
                self._mark_as_failed(run_id, error)
                raise
        return version

    def promote(self, version: ModelVersion, why: str = "", by: str = GATE) -> None:
        """Make `version` the champion of its name, and record when, who and why in its tags."""
        with self._asking("promote"):
            self._client.set_registered_model_alias(version.name, CHAMPION, version.version)
            now = datetime.now(UTC).isoformat()
            told = {PROMOTED_AT: now, PROMOTED_WHY: why, PROMOTED_BY: by, ROLLED_BACK_AT: "", HELD_BY: ""}
            self._tag(version, told)
            self._describe(version, f"Promoted by {by}: {why}")
        audit.note("promote-model", "done", model=version.name, version=version.version, by=by, why=why)

    def rollback(self, name: str, why: str = "", by: str = GATE) -> tuple[ModelVersion, ModelVersion]:
        """Make the previous champion the champion again -> (the new champion, the one that it replaces).

        A second call goes one step further back: a version that was rolled back is skipped until somebody promotes it.
        The new champion is held until a promotion: see `hold`.

        Raises:
            NoChampion: there is no champion, or none was before it.
        """
        target, now = self.before_champion(name)
        with self._asking("roll back"):
            self._tag(now, {ROLLED_BACK_AT: datetime.now(UTC).isoformat(), ROLLED_BACK_WHY: f"{by}: {why}"})
            self._describe(now, f"Rolled back by {by}: {why}")
        audit.note("roll-back-model", "done", model=name, version=now.version, by=by, why=why)
        self.promote(target, why, by)
        with self._asking("hold the champion"):
            self._tag(target, {HELD_BY: f"{by} rolled back to it from version {now.version}: {why}"})
        return target, now

    def before_champion(self, name: str) -> tuple[ModelVersion, ModelVersion]:
        """(the version that `rollback` would make the champion, the current champion).

        Raises:
            NoChampion: there is no champion, or none was before it.
        """
        now = self.champion(name)
        before = [
            version
            for version in self.versions(name)
            if version.version != now.version and version.tags.get(PROMOTED_AT) and not version.tags.get(ROLLED_BACK_AT)
        ]
        if not before:
            raise NoChampion(
                f"No other version of {name!r} was champion before version {now.version}. "
                "Choose one: `bookclub model list`, then `bookclub model promote VERSION`."
            )
        return max(before, key=lambda version: version.tags[PROMOTED_AT]), now

    def versions(self, name: str) -> list[ModelVersion]:
        """Every version of a model, newest first."""
        with self._asking("list the versions of a model"):
            found: list[MlflowModelVersion] = []
            token = None
            while token or not found:
                page = self._client.search_model_versions(f"name='{name}'", max_results=1000, page_token=token)
                found += page
                token = page.token
                if not page:
                    break
            return sorted(map(_model_version, found), key=lambda version: -int(version.version))

    def version(self, name: str, number: str) -> ModelVersion:
        """The version `number` of the model `name`.

        Raises:
            NoChampion: there is no such version.
        """
        for version in self.versions(name):
            if version.version == number:
                return version
        raise NoChampion(f"There is no version {number} of {name!r}; `bookclub model list` shows which there are.")

    def note(self, version: ModelVersion, metrics: Mapping[str, float], tags: Mapping[str, str]) -> None:
        """Add metrics and tags to the run behind `version`, and the tags to the version too."""
        with self._asking("take a note"):
            self._log(version.run_id, {}, metrics)
            self._tag(version, tags)

    def _tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(version.name, version.version, key, value)
            self._client.set_tag(version.run_id, key, value)

    def _describe(self, version: ModelVersion, text: str) -> None:
        """Set the description, which MLflow's list of versions shows in full, unlike tags."""
        self._client.update_model_version(version.name, version.version, text)

    def champion(self, name: str) -> ModelVersion:
        """The champion of the model `name`.

        Raises:
            NoChampion: there is no such model, or none of its versions was promoted.
        """
        with self._asking("name the champion"):
            from mlflow.exceptions import MlflowException

            try:
                return _model_version(self._client.get_model_version_by_alias(name, CHAMPION))
            except MlflowException as error:
                # An unknown model gives the first, a model without this alias the second.
                if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                    raise
                raise no_champion(self._address, name) from error

    def figures(self, version: ModelVersion) -> dict[str, float]:
        """The metrics of the run that made `version`."""
        with self._asking("give the figures of a model"):
            return dict(self._client.get_run(version.run_id).data.metrics)

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """The files of `version` in a folder of its own below `folder`; downloaded only if it does not exist yet.

        Raises:
            ArtifactInvalid: the registry knows the version, but its files are gone.
        """
        return fetched_once(version, folder, lambda part: self._fetch(version, part))

    def run_url(self, version: ModelVersion, ui_address: str) -> str:
        """The page in MLflow's UI at `ui_address` of the run behind `version`."""
        with self._asking("name the experiment of a run"):
            experiment_id = self._client.get_run(version.run_id).info.experiment_id
        return f"{ui_address.rstrip('/')}/#/experiments/{experiment_id}/runs/{version.run_id}"

    @property
    def _address(self) -> str:
        return shown(self.tracking_uri)

    @cached_property
    def _client(self) -> MlflowClient:
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        if self.tracking_uri.startswith("postgresql"):
            from bookclub_platform.core.database import wait_until_up

            # MLflow itself would retry for 50 minutes.
            wait_until_up(self.tracking_uri, DATABASE_TIMEOUT_S)
        from mlflow import MlflowClient

        return MlflowClient(self.tracking_uri, self.tracking_uri)

    @contextmanager
    def _asking(self, request: str) -> Iterator[None]:
        """Translate MLflow's exceptions into RegistryUnavailable."""
        try:
            yield
        except Exception as error:
            from mlflow.exceptions import MlflowException
            from sqlalchemy.exc import SQLAlchemyError

            # MLflow lets exceptions of `requests` through: OSErrors without the errno that local ones have.
            is_remote = isinstance(error, OSError) and error.errno is None
            if not (is_remote or isinstance(error, DatabaseUnavailable | MlflowException | SQLAlchemyError)):
                raise
            raise RegistryUnavailable(
                f"MLflow at {self._address} did not {request}. See that it runs and MLFLOW_TRACKING_URI is right. "
                f"What it said: {' '.join(str(error).split())}"
            ) from error

    def _experiment(self, name: str, artifact_root: str | None) -> str:
        from mlflow.exceptions import MlflowException

        if found := self._client.get_experiment_by_name(name):
            return found.experiment_id
        try:
            return self._client.create_experiment(name, artifact_location=artifact_root)
        except MlflowException as error:
            found = self._client.get_experiment_by_name(name)  # another process may have been first
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found.experiment_id

    def _log(self, run_id: str, parameters: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param

        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, now_ms, 0) for key, value in metrics.items()],
            params=[Param(key, str(value)) for key, value in parameters.items()],
        )

    def _create_version(self, name: str, source: str, run_id: str, tags: Mapping[str, str]) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return _model_version(
            self._client.create_model_version(
                name, source, run_id, tags=dict(tags), description=tags.get("decision"), await_creation_for=0
            )
        )

    def _mark_as_failed(self, run_id: str, error: BaseException) -> None:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            self._client.set_tag(run_id, "error", f"{type(error).__name__}: {error}"[:500])
            self._client.set_terminated(run_id, "FAILED")
        except (MlflowException, SQLAlchemyError, OSError) as second:
            error.add_note(f"The MLflow run {run_id} could not be marked as failed either: {second}")

    def _fetch(self, version: ModelVersion, folder: Path) -> Path:
        """Download the files into a folder below `folder`."""
        from mlflow.artifacts import download_artifacts, list_artifacts

        with self._asking("give the files of a model"):
            source = self._client.get_model_version_download_uri(version.name, version.version)
            if not list_artifacts(source, tracking_uri=self.tracking_uri):
                raise ArtifactInvalid(
                    f"Version {version.version} of {version.name} is registered, and its files are not at {source}. "
                    "Train and publish a new version."
                )
            return Path(download_artifacts(source, dst_path=str(folder), tracking_uri=self.tracking_uri))


def fetched_once(version: ModelVersion, folder: Path, fetch: Callable[[Path], Path]) -> Path:
    """The folder of `version` below `folder`. If it does not exist yet, `fetch` puts the files into a folder below the
    one that it is given, and returns that folder."""
    target = folder / f"{version.version}-{version.run_id}"
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
    try:
        fetched = fetch(part)
        # The folder appears complete or not at all, even if two processes download at the same time.
        try:
            fetched.rename(target)
        except OSError:
            if not target.exists():
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def shown(tracking_uri: str) -> str:
    """The tracking URI for display, with the password that it may contain masked."""
    return re.sub(r"(?<=:)[^:/@]*(?=@)", "***", tracking_uri)


def no_champion(address: str, name: str) -> NoChampion:
    """The error for a registry without a champion."""
    return NoChampion(
        f"MLflow at {address} has no champion of {name!r} yet. Materialise the asset {name}, or run `bookclub build`."
    )


def version_at(
    name: str, version: str | int, run_id: str | None, created_ms: int, tags: dict[str, str]
) -> ModelVersion:
    """A version from MLflow's fields; `created_ms` is in milliseconds since 1970."""
    return ModelVersion(name, str(version), run_id or "", datetime.fromtimestamp(created_ms / 1000, UTC), tags)


def _model_version(found: MlflowModelVersion) -> ModelVersion:
    return version_at(found.name, found.version, found.run_id, found.creation_timestamp, dict(found.tags))


def hold(champion: ModelVersion) -> str | None:
    """Why the gate may not replace `champion`, in a sentence; None if it may.

    Whoever rolled a model back saw what no judge saw. The next retrain learns from the same books and would restore it.
    """
    by = champion.tags.get(HELD_BY)
    return (
        f"Version {champion.version} is held ({by}); `bookclub model promote` makes another the champion."
        if by
        else None
    )


def decided(version: ModelVersion) -> str:
    """The last decision about `version`: who made it, and why."""
    tags = version.tags
    if tags.get(ROLLED_BACK_AT):
        return tags.get(ROLLED_BACK_WHY, "")
    if tags.get(PROMOTED_AT):
        return f"{tags.get(PROMOTED_BY, GATE)}: {tags.get(PROMOTED_WHY, '')}"
    return f"{GATE}: {tags['decision']}" if "decision" in tags else ""
