"""MLflow's REST API -> the champion, its metrics and its files; for serving, which publishes nothing.

    registry = reader("http://127.0.0.1:5000"); folder = registry.download(registry.champion("tfidf_model"), folder)

A few requests replace mlflow-skinny with its 20 packages and 40 MB. The server proxies the files, wherever it stores
them, so that serving needs no credentials for an object store.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from bookclub_platform.core.errors import ArtifactInvalid, RegistryUnavailable
from bookclub_platform.models._registry import (
    ARTIFACT_PATH,
    CHAMPION,
    ModelVersion,
    Registry,
    fetched_once,
    no_champion,
    shown,
    version_at,
)

TIMEOUT_S = "10"
_PROXIED = "mlflow-artifacts:/"  # the scheme of artifacts that MLflow's server proxies


class RegistryReader(Protocol):
    """The registry methods that serving needs; see `Registry`."""

    def champion(self, name: str) -> ModelVersion: ...

    def figures(self, version: ModelVersion) -> dict[str, float]: ...

    def download(self, version: ModelVersion, folder: Path) -> Path: ...


def reader(tracking_uri: str) -> RegistryReader:
    """The registry at `tracking_uri`; mlflow is needed only if that is not an HTTP address."""
    return HttpRegistry(tracking_uri) if tracking_uri.startswith(("http://", "https://")) else Registry(tracking_uri)


class HttpRegistry:
    """MLflow's server at an HTTP address.

    The user and password come from the address or, as with MLflow's own client, from MLFLOW_TRACKING_USERNAME and
    _PASSWORD; a token comes from MLFLOW_TRACKING_TOKEN.
    """

    def __init__(self, tracking_uri: str) -> None:
        self._root, self._headers = address_and_headers(tracking_uri)
        self._address = shown(tracking_uri)
        self._timeout_s = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT", TIMEOUT_S))

    def champion(self, name: str) -> ModelVersion:
        """See `Registry.champion`."""
        try:
            answer = self._ask("name the champion", "registered-models/alias", name=name, alias=CHAMPION)
        except _Refused as error:
            # An unknown model gives the first, a model without this alias the second.
            if error.code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
                raise no_champion(self._address, name) from error
            raise
        found = answer["model_version"]
        tags = {tag["key"]: tag["value"] for tag in found.get("tags", [])}
        return version_at(found["name"], found["version"], found.get("run_id"), int(found["creation_timestamp"]), tags)

    def figures(self, version: ModelVersion) -> dict[str, float]:
        """See `Registry.figures`."""
        run = self._ask("give the figures of a model", "runs/get", run_id=version.run_id)["run"]
        return {metric["key"]: float(metric["value"]) for metric in run["data"].get("metrics", [])}

    def download(self, version: ModelVersion, folder: Path) -> Path:
        """See `Registry.download`."""
        return fetched_once(version, folder, lambda part: self._fetch(version, part))

    def _fetch(self, version: ModelVersion, folder: Path) -> Path:
        run_id, root, source = self._place(version)
        answer = self._ask("list the files of a model", "artifacts/list", run_id=run_id, path=str(source))
        paths = [PurePosixPath(file["path"]) for file in answer.get("files", []) if not file.get("is_dir")]
        if not paths:
            raise ArtifactInvalid(
                f"Version {version.version} of {version.name} is registered, and its files are not in {source} of its "
                f"run {run_id}. Train and publish a new version."
            )
        target = folder / ARTIFACT_PATH
        target.mkdir()
        for path in paths:
            if path.parent != source or path.name in {"..", "."}:
                raise ArtifactInvalid(
                    f"Version {version.version} of {version.name} has a file {path}: not one of ours."
                )
            self._save(self._file_at(run_id, root, path), target / path.name)
        return target

    def _file_at(self, run_id: str, root: str, path: PurePosixPath) -> str:
        """The URL of a file of a run whose files are below `root`."""
        if root.startswith(_PROXIED) and not root.startswith(f"{_PROXIED}/"):
            # The route that MLflow's own client uses, eight times as fast; two slashes would name another server.
            place = urllib.parse.quote(f"{root.removeprefix(_PROXIED)}{path}")
            return f"{self._root}/api/2.0/mlflow-artifacts/artifacts/{place}"
        return f"{self._root}/get-artifact?{urllib.parse.urlencode({'run_uuid': run_id, 'path': str(path)})}"

    def _place(self, version: ModelVersion) -> tuple[str, str, PurePosixPath]:
        """The run, the root of its files, and the folder below it that `version` was registered with; MLflow allows any
        folder."""
        request = "say where the files of a model lie"
        answer = self._ask(request, "model-versions/get-download-uri", name=version.name, version=version.version)
        source, run_id, path = answer.get("artifact_uri", ""), version.run_id, ""
        if source.startswith("runs:/"):
            run_id, _, path = source.removeprefix("runs:/").partition("/")
        run = self._ask(request, "runs/get", run_id=run_id)["run"] if run_id else {"info": {}}
        root = run["info"].get("artifact_uri", "").rstrip("/") + "/"
        if root != "/" and source.startswith(root):
            path = source.removeprefix(root)
        if not run_id or not path.strip("/") or ".." in path.split("/"):
            raise ArtifactInvalid(
                f"Version {version.version} of {version.name} was registered with files at {shown(source)}, which is "
                "no folder of a run's files: MLflow's server gives out no others. Publish a version from a run."
            )
        return run_id, root, PurePosixPath(path)

    def _save(self, address: str, path: Path) -> None:
        request = urllib.request.Request(address, headers=self._headers)
        try:
            answer = urllib.request.urlopen(request, timeout=self._timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable("give the files of a model", error) from error
        # A full disk is an OSError too, and must not be reported as the registry's fault.
        with answer, path.open("wb") as file:
            while block := self._read(answer):
                file.write(block)

    def _read(self, answer: Any) -> bytes:
        try:
            block: bytes = answer.read(1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise self._unavailable("give the files of a model", error) from error
        return block

    def _ask(self, request: str, endpoint: str, **query: str) -> dict[str, Any]:
        address = f"{self._root}/api/2.0/mlflow/{endpoint}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(address, headers=self._headers), timeout=self._timeout_s
            ) as answer:
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise _Refused(self._text(request, error), _code(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self._unavailable(request, error) from error
        if not isinstance(found, dict):
            raise self._unavailable(request, ValueError("no JSON object"))
        return found

    def _unavailable(self, request: str, error: Exception) -> RegistryUnavailable:
        return RegistryUnavailable(self._text(request, error))

    def _text(self, request: str, error: Exception) -> str:
        return (
            f"MLflow at {self._address} did not {request}. See that it runs and MLFLOW_TRACKING_URI is right. "
            f"What it said: {' '.join(str(error).split())}"
        )


class _Refused(RegistryUnavailable):
    """MLflow responded with an error; `code` is MLflow's error code."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.code = code


def _code(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error_code"])
    except (OSError, ValueError, KeyError, TypeError, http.client.HTTPException):
        return ""  # the response came from something in front of MLflow


def address_and_headers(tracking_uri: str) -> tuple[str, dict[str, str]]:
    """The address without user and password, and the headers that tell who asks."""
    parts = urllib.parse.urlsplit(tracking_uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}", _authorization(parts)


def _authorization(parts: urllib.parse.SplitResult) -> dict[str, str]:
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        pair = f"{user}:{password}"
        if parts.username:
            pair = urllib.parse.unquote(pair)
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    return {}
