"""models/_registry.py against real MLflow stores: a database by itself, and a server over http with its own files."""

from __future__ import annotations

import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.errors import ArtifactInvalid, NoChampion, RegistryUnavailable
from bookclub_platform.models import BookText, Registry, Tfidf, load_model
from bookclub_platform_tests.api_fixtures import mlflow_server
from bookclub_platform_tests.mlflow_store import store_in

PARAMETERS = {"title_weight": 2, "unknown_categories": ["default"]}
METRICS = {"coverage": 0.99, "fit_s": 0.3}
TAGS = {"data_version": "7"}


@pytest.fixture(scope="module")
def model() -> Tfidf:
    words = ["lighthouse", "reef", "oven", "flour", "detective", "murder", "planet", "orbit"]
    rows = [BookText(at, f"Book {at}", f"A {words[at % 8]} and a {words[at * 3 % 8]}.", "x", "X") for at in range(40)]
    return Tfidf().fit(rows)


@pytest.fixture
def database(tmp_path: Path) -> Registry:
    return Registry(store_in(tmp_path))


@pytest.fixture
def root(tmp_path: Path) -> str:
    return (tmp_path / "artifacts").as_uri()


def test_publishing_leaves_a_finished_run_with_all_it_was_given(database: Registry, root: str, model: Tfidf) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    assert (version.name, version.version, version.tags) == ("tfidf_model", "1", TAGS)
    assert abs(datetime.now(UTC) - version.registered_at) < timedelta(minutes=1)
    run = database._client.get_run(version.run_id)
    assert run.info.run_name == "version 1"
    assert run.info.status == "FINISHED" and run.info.artifact_uri.startswith(root)
    assert run.data.params == {"title_weight": "2", "unknown_categories": "['default']"}
    assert run.data.metrics == METRICS and run.data.tags.items() >= TAGS.items()


def test_pages_lie_beside_the_model(database: Registry, root: str, model: Tfidf, tmp_path: Path) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root, pages={"samples.html": "<p>one’s own</p>"})
    run = database._client.get_run(version.run_id)
    page = Path(urllib.request.url2pathname(urllib.parse.urlsplit(run.info.artifact_uri).path), "pages", "samples.html")
    assert page.read_text(encoding="utf-8") == "<p>one’s own</p>"
    assert load_model(database.download(version, tmp_path)).recommend(3, 10) == model.recommend(3, 10)


def test_publishing_moves_no_alias(database: Registry, root: str, model: Tfidf) -> None:
    first = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    with pytest.raises(NoChampion, match="no champion of 'tfidf_model' yet"):
        database.champion("tfidf_model")
    database.promote(first)
    second = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    assert second.version == "2" and database.champion("tfidf_model").run_id == first.run_id
    database.promote(second)
    assert database.champion("tfidf_model").run_id == second.run_id


def test_an_unknown_model_has_no_champion(database: Registry) -> None:
    with pytest.raises(NoChampion, match="Materialise the asset nothing"):
        database.champion("nothing")


def test_a_model_that_cannot_be_saved_leaves_a_failed_run_and_no_version(database: Registry, root: str) -> None:
    class Broken(Tfidf):
        def save(self, folder: Path) -> None:
            (folder / "idf.npy").write_bytes(b"half of it")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        database.publish(Broken(), PARAMETERS, METRICS, TAGS, root)
    client = database._client
    [run] = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FAILED" and "No space left" in run.data.tags["error"]
    assert not client.search_model_versions("name = 'tfidf_model'")


def test_downloaded_files_give_the_same_lists(database: Registry, root: str, model: Tfidf, tmp_path: Path) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    folder = database.download(version, tmp_path / "local")
    assert folder == tmp_path / "local" / f"1-{version.run_id}"
    assert load_model(folder).recommend(3, 10) == model.recommend(3, 10)
    assert [path.name for path in (tmp_path / "local").iterdir()] == [folder.name], "nothing else is left behind"


def test_what_lies_there_is_not_fetched_again(database: Registry, root: str, model: Tfidf, tmp_path: Path) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    folder = database.download(version, tmp_path / "local")
    shutil.rmtree(tmp_path / "artifacts")
    assert Registry("http://127.0.0.1:9").download(version, tmp_path / "local") == folder


def test_two_at_once_get_one_whole_folder(database: Registry, root: str, model: Tfidf, tmp_path: Path) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(database.download(version, tmp_path / "local"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and len(set(found)) == 1 and load_model(found[0])
    assert list((tmp_path / "local").iterdir()) == [found[0]]


def test_a_version_whose_files_are_gone_is_invalid(database: Registry, root: str, model: Tfidf, tmp_path: Path) -> None:
    version = database.publish(model, PARAMETERS, METRICS, TAGS, root)
    shutil.rmtree(tmp_path / "artifacts")
    with pytest.raises(ArtifactInvalid, match="files are not at"):
        database.download(version, tmp_path / "local")
    assert not list((tmp_path / "local").iterdir())


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "postgresql+psycopg2://reader:secret@127.0.0.1:9/mlflow"])
def test_a_registry_that_is_away_is_said_to_be_within_seconds(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookclub_platform.models._registry.DATABASE_TIMEOUT_S", 1.0)
    started = time.monotonic()
    with pytest.raises(RegistryUnavailable, match=r"did not name the champion\. .*MLFLOW_TRACKING_URI") as raised:
        Registry(uri).champion("tfidf_model")
    assert time.monotonic() - started < 5
    assert "secret" not in str(raised.value)


def test_the_whole_way_on_postgres(postgres_url: str, root: str, model: Tfidf, tmp_path: Path) -> None:
    registry = Registry(database_urls(postgres_url).mlflow)
    version = registry.publish(model, PARAMETERS, METRICS, TAGS, root)
    registry.promote(version)
    assert registry.champion("tfidf_model").run_id == version.run_id
    assert load_model(registry.download(version, tmp_path / "local")).recommend(3, 10) == model.recommend(3, 10)


def test_the_whole_way_over_http(model: Tfidf, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as address:
        registry = Registry(address)
        with pytest.raises(NoChampion):
            registry.champion("tfidf_model")
        version = registry.publish(model, PARAMETERS, METRICS, TAGS, None)
        registry.promote(version)
        assert registry.champion("tfidf_model").run_id == version.run_id
        assert load_model(registry.download(version, tmp_path)).recommend(3, 10) == model.recommend(3, 10)
        url = registry.run_url(version, f"{address}/")
        assert url.startswith(f"{address}/#/experiments/") and url.endswith(f"/runs/{version.run_id}")
        shutil.rmtree(tmp_path / "server" / "artifacts")
        with pytest.raises(ArtifactInvalid):
            Registry(address).download(version, tmp_path / "again")
