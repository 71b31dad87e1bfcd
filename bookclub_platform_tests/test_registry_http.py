"""The registry as serving reads it, over HTTP alone: the same as by MLflow's own client, on a real server."""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from bookclub_platform.core.errors import ArtifactInvalid, NoChampion, RegistryUnavailable
from bookclub_platform.models import BookText, ModelVersion, Registry, Tfidf, reader
from bookclub_platform.models._registry_http import HttpRegistry
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.local_http import Handler, served

ROWS = [
    BookText(i, f"The {word} {i}", f"a tale of the {word}", "sea", "Sea")
    for i, word in enumerate(["tide", "whale"] * 4)
]


_save = HttpRegistry._save


@pytest.fixture(scope="module")
def published() -> tuple[str, ModelVersion]:
    """A server, and the champion of a model of ours there."""
    address, _ = given.shared_mlflow()
    model = Tfidf().fit(ROWS)
    model.name = "read_over_http"
    registry = Registry(address)
    version = registry.publish(model, {}, {"coverage": 0.5, "gain": -0.25}, {"data_version": "7"}, artifact_root=None)
    registry.promote(version, "by hand")
    return address, version


def test_champion_figures_and_files_are_those_that_mlflows_client_gives(
    published: tuple[str, ModelVersion], tmp_path: Path
) -> None:
    address, version = published
    ours, mlflows = reader(address), Registry(address)
    assert isinstance(ours, HttpRegistry)
    champion = ours.champion(version.name)
    assert champion == mlflows.champion(version.name) and champion.tags["promoted_why"] == "by hand"
    assert ours.figures(champion) == mlflows.figures(champion) == {"coverage": 0.5, "gain": -0.25}
    folder, other = ours.download(champion, tmp_path / "ours"), mlflows.download(champion, tmp_path / "mlflows")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files == {path.name: path.read_bytes() for path in other.iterdir()} and folder.name == other.name
    assert len(files) > 8
    (folder / "manifest.json").unlink()
    assert ours.download(champion, tmp_path / "ours") == folder  # not fetched twice
    assert not list((tmp_path / "ours").glob(".*"))


def test_files_come_wherever_the_server_keeps_them(
    published: tuple[str, ModelVersion], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, proxied = published
    model = Tfidf().fit(ROWS)
    model.name = "kept_in_a_folder"
    version = Registry(address).publish(model, {}, {}, {}, artifact_root=(tmp_path / "root").as_uri())
    asked: list[str] = []
    monkeypatch.setattr(HttpRegistry, "_save", lambda self, at, path: asked.append(at) or _save(self, at, path))
    for of, route in ((proxied, "/api/2.0/mlflow-artifacts/artifacts/"), (version, "/get-artifact?")):
        files = {path.name for path in reader(address).download(of, tmp_path / of.name).iterdir()}
        assert len(files) == len(asked) > 8 and all(at.startswith(address + route) for at in asked)
        asked.clear()


def test_without_a_champion_it_says_what_makes_one(published: tuple[str, ModelVersion]) -> None:
    address, _ = published
    with pytest.raises(NoChampion, match="bookclub build"):
        reader(address).champion("no such model")
    model = Tfidf().fit(ROWS)
    model.name = "never_promoted"
    Registry(address).publish(model, {}, {}, {}, artifact_root=None)
    with pytest.raises(NoChampion, match="never_promoted"):
        reader(address).champion("never_promoted")


def test_files_that_are_gone_are_an_invalid_artifact_and_leave_nothing_behind(
    published: tuple[str, ModelVersion], tmp_path: Path
) -> None:
    address, _ = published
    model = Tfidf().fit(ROWS)
    model.name = "files_gone"
    version = Registry(address).publish(model, {}, {}, {}, artifact_root=None)
    _, folder = given.shared_mlflow()
    for path in folder.rglob("*"):
        if version.run_id in str(path) and path.is_file():
            path.unlink()
    with pytest.raises(ArtifactInvalid, match="Train and publish"):
        reader(address).download(version, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["{root}/other/second", "runs:/{run}/other/second", "models:/{name}/2"])
def test_the_files_are_those_that_the_version_was_registered_with(
    published: tuple[str, ModelVersion], tmp_path: Path, source: str
) -> None:
    address, first = published
    client, name = MlflowClient(address, address), f"elsewhere {source[:4]}"
    root = client.get_run(first.run_id).info.artifact_uri
    (tmp_path / "manifest.json").write_text("another")
    client.log_artifacts(first.run_id, str(tmp_path), "other/second")
    client.create_registered_model(name)
    for place in (f"{root}/model", f"{root}/other/second"):
        client.create_model_version(name, place, first.run_id, await_creation_for=0)
    at = source.format(root=root, run=first.run_id, name=name)
    made = client.create_model_version(name, at, first.run_id, await_creation_for=0)
    client.set_registered_model_alias(name, "champion", made.version)
    version = reader(address).champion(name)
    ours, mlflows = (
        reader(address).download(version, tmp_path / "a"),
        Registry(address).download(version, tmp_path / "b"),
    )
    assert [path.name for path in ours.iterdir()] == [path.name for path in mlflows.iterdir()] == ["manifest.json"]
    assert (ours / "manifest.json").read_text() == "another"


@pytest.mark.parametrize("source", ["s3://bucket/model", "runs:/{run}", "{root}"])
def test_a_version_whose_files_are_no_folder_of_a_run_is_refused(
    published: tuple[str, ModelVersion], tmp_path: Path, source: str
) -> None:
    address, first = published
    client, name = MlflowClient(address, address), f"nowhere {len(source)}"
    client.create_registered_model(name)
    at = source.format(root=client.get_run(first.run_id).info.artifact_uri, run=first.run_id)
    client.set_registered_model_alias(name, "champion", client.create_model_version(name, at, first.run_id).version)
    with pytest.raises(ArtifactInvalid, match="no folder of a run"):
        reader(address).download(reader(address).champion(name), tmp_path)
    assert not list(tmp_path.iterdir())


class _Guarded(Handler):
    """Answers who knows the password as a registry without models; others as a gateway would."""

    def do_GET(self) -> None:
        known = f"Basic {base64.b64encode(b'us:p@ss').decode()}"
        if self.headers["Authorization"] == known:
            status, body = 404, b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none"}'
        elif "sudden" in self.path:
            status, body = 200, b"<html>no JSON</html>"
        else:
            status, body = 401, b"<html>who are you?</html>"
        self.say(status, body)


@pytest.fixture
def guarded() -> Iterator[str]:
    with served(_Guarded) as address:
        yield address.removeprefix("http://")


def test_user_and_password_are_sent_and_never_told(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoChampion) as told:
        reader(f"http://us:p%40ss@{guarded}").champion("m")
    assert "p%40ss" not in str(told.value)
    with pytest.raises(RegistryUnavailable, match="401"):
        reader(f"http://{guarded}").champion("m")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "us")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss")
    with pytest.raises(NoChampion):
        reader(f"http://{guarded}").champion("m")


def test_one_that_is_away_or_hangs_or_is_no_mlflow_is_unavailable_within_seconds(
    guarded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "0.5")
    version = given.ModelVersion("m", "1", "r", given.FIRST_CRAWL, {})
    with socket.create_server(("127.0.0.1", 0), backlog=5) as hung:
        for address in ("127.0.0.1:9", f"127.0.0.1:{hung.getsockname()[1]}", guarded):
            started = time.monotonic()
            with pytest.raises(RegistryUnavailable, match="MLFLOW_TRACKING_URI"):
                reader(f"http://{address}").champion("sudden")
            with pytest.raises(RegistryUnavailable):
                reader(f"http://{address}").figures(version)
            assert time.monotonic() - started < 3
