"""`bookclub model`: what the operator sees of the versions, and that the API does what was decided, within seconds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from click.testing import CliRunner, Result

from bookclub_platform.assets.tfidf_model import _standing, _unless_changed
from bookclub_platform.cli import main
from bookclub_platform.core.errors import NoChampion
from bookclub_platform.models import BookText, ModelVersion, Registry, Tfidf
from bookclub_platform.models._gate import Decision
from bookclub_platform.models._registry import hold
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.mlflow_store import store_in
from serving.app import create_app

ROWS = [
    BookText(at, f"Book {at}", f"A {given.THEMES['sea'][at % 8]} and a {given.THEMES['space'][at * 3 % 8]}.", "x", "X")
    for at in range(1, 40)
]


class Store(NamedTuple):
    """A finished MLflow store: its folder, and versions 1 to 3, each champion in its turn, and 4, which was refused."""

    folder: Path
    versions: list[ModelVersion]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    registry, model = Registry(store_in(folder)), Tfidf().fit(ROWS)
    made = []
    for number in range(1, 5):
        reason = "It is not clearly better." if number == 4 else f"It is better ({number})."
        scores = {"challenger_score": number / 10}
        made.append(registry.publish(model, {}, scores, {"decision": reason}, (folder / "artifacts").as_uri()))
        if number < 4:
            registry.promote(made[-1], reason)
    return Store(folder, made)


@pytest.fixture
def registry(store: Store, tmp_path: Path) -> Registry:
    """A copy of its database, which takes seconds to make; the files of the models are its own."""
    shutil.copy(store.folder / "mlflow.db", tmp_path)
    return Registry(f"sqlite:///{tmp_path}/mlflow.db")


def bookclub(home: Path, *arguments: str) -> Result:
    environment = {"BOOKCLUB_HOME": str(home), "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db"}
    return CliRunner(env=environment).invoke(main, ["model", *arguments])


def champion(registry: Registry) -> str:
    return registry.champion("tfidf_model").version


def test_each_rollback_goes_one_champion_back_and_stops_at_the_first(registry: Registry, store: Store) -> None:
    for expected in ("2", "1"):
        registry.rollback("tfidf_model", "complaints", by="ada")
        assert champion(registry) == expected
    with pytest.raises(NoChampion, match="bookclub model promote"):
        registry.rollback("tfidf_model")
    assert champion(registry) == "1"
    registry.promote(store.versions[2], "mended", by="ada")
    assert not registry.version("tfidf_model", "3").tags["rolled_back_at"]
    registry.rollback("tfidf_model")
    assert champion(registry) == "1", "2 was rolled back, and nobody promoted it since"


def test_what_a_person_rolled_back_to_is_held_until_a_person_promotes(registry: Registry, store: Store) -> None:
    assert hold(registry.champion("tfidf_model")) is None
    registry.rollback("tfidf_model", "complaints", by="ada")
    held = hold(registry.champion("tfidf_model"))
    assert held is not None and "ada rolled back to it from version 3: complaints" in held
    registry.promote(store.versions[2], "mended", by="ada")
    assert hold(registry.champion("tfidf_model")) is None
    registry.promote(store.versions[1], "again", by="ada")
    assert hold(registry.champion("tfidf_model")) is None, "promoted, not rolled back to"


def test_a_retrain_respects_what_a_person_did_while_it_ran(registry: Registry, store: Store) -> None:
    better = Decision(True, "It is better.", {})
    for act in (
        lambda: registry.rollback("tfidf_model", "complaints", by="ada"),
        lambda: registry.promote(store.versions[0], "a hunch", by="ada"),
    ):
        standing = _standing(registry)
        assert _unless_changed(better, registry, standing) is better
        act()
        changed = _unless_changed(better, registry, standing)
        assert not changed.is_promoted and "It is better. But the champion was changed meanwhile." in changed.reason


def test_the_list_shows_score_state_and_decision_of_each_version(registry: Registry, tmp_path: Path) -> None:
    assert bookclub(tmp_path, "rollback", "--why", "too many cats").exit_code == 0
    head, *lines = bookclub(tmp_path, "list").stdout.splitlines()
    assert head.split() == ["version", "trained", "(UTC)", "score", "state", "decision"]
    assert [line.split()[0] for line in lines] == ["4", "3", "2", "1"]
    assert " 0.4000 " in lines[0] and lines[0].endswith("the gate: It is not clearly better.")
    assert " rolled back " in lines[1] and lines[1].endswith(": too many cats")
    assert " champion " in lines[2] and lines[2].endswith(": too many cats")
    assert " was champion " in lines[3] and lines[3].endswith("the gate: It is better (1).")
    assert [line.split()[0] for line in bookclub(tmp_path, "list", "--limit", "1").stdout.splitlines()[1:]] == [
        "4",
        "2",
    ], "the champion is always shown"


@pytest.fixture
def damaged(store: Store) -> Iterator[None]:
    """The files of versions 2 and 4 are cut; whole again afterwards."""
    whole = {path: path.read_bytes() for path in store.folder.rglob("idf.npy")}
    for version in store.versions[1::2]:
        given.damage(store.folder, version)
    yield
    for path, content in whole.items():
        path.write_bytes(content)


def test_what_cannot_be_done_is_told_in_a_sentence_and_leaves_the_champion(
    registry: Registry, store: Store, damaged: None, tmp_path: Path
) -> None:
    unknown = bookclub(tmp_path, "promote", "77")
    assert unknown.exit_code == 1 and "no version 77" in unknown.stderr
    for refused in (bookclub(tmp_path, "promote", "4"), bookclub(tmp_path, "rollback")):
        assert refused.exit_code == 1 and "idf.npy" in refused.stderr
        assert isinstance(refused.exception, SystemExit)
    assert champion(registry) == "3"
    assert not registry.version("tfidf_model", "3").tags["rolled_back_at"]


@pytest.fixture
def api(database_url: str, registry: Registry, tmp_path: Path) -> Iterator[httpx.Client]:
    app = create_app(given.settings(tmp_path, model_poll_s=1), database_url, f"sqlite:///{tmp_path}/mlflow.db")
    with given.serving(app) as client:
        given.wait_for(lambda: given.model_version(client) == "3")
        yield client


def test_the_api_takes_up_a_rollback_and_a_promotion_within_seconds_and_both_are_logged(
    api: httpx.Client, registry: Registry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for arguments, expected, acts in (
        (["rollback", "--why", "complaints"], "2", ["roll-back-model", "promote-model"]),
        (["promote", "4", "--why", "readers like it"], "4", ["promote-model"]),
    ):
        caplog.clear()
        done = bookclub(tmp_path, *arguments)
        assert done.exit_code == 0, done.stderr
        given.wait_for(lambda expected=expected: given.model_version(api) == expected, 5)
        lines = [json.loads(record.getMessage()) for record in caplog.records if record.name == "bookclub.audit"]
        noted = [line for line in lines if line["act"] != "take-up-model"]  # that is the API's
        assert [line["act"] for line in noted] == acts
        assert noted[-1]["version"] == expected and noted[-1]["why"] == arguments[-1] and noted[-1]["by"]
    run = registry._client.get_run(registry.champion("tfidf_model").run_id)
    shown = registry._client.get_model_version("tfidf_model", "4").description
    assert shown == f"Promoted by {run.data.tags['promoted_by']}: readers like it"
    assert run.data.tags["promoted_why"] == "readers like it", "also on the run, for who looks there"
