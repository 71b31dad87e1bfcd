"""The API that starts while MLflow is away, hangs or has forgotten all: what it then recommends with, and says."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from serving.app import create_app

world = given.world
AWAY = "http://127.0.0.1:9"


@pytest.fixture
def home(world: World, tmp_path: Path) -> Path:
    """The home of an API that ran with the first model, and ended."""
    with given.serving(create_app(given.settings(tmp_path), world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version)
        assert get(client, "/model")["is_confirmed"]
    return tmp_path


@pytest.fixture
def hung() -> Iterator[str]:
    """The address of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_it_starts_from_its_local_copy_while_the_registry_is_away_and_says_so(world: World, home: Path) -> None:
    book_id = ids_of(world)[0]
    with given.serving(create_app(given.settings(home), world.database_url, AWAY)) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version)
        given.wait_for(lambda: "did not name" in get(client, "/ready")["checks"]["registry"]["detail"])
        items = get(client, f"/books/{book_id}/recommendations", limit=5, in_stock=False)["items"]
        expected = world.models[world.first.version].recommend(book_id, 5)
        assert [(item["book"]["id"], item["score"]) for item in items] == [(e.book_id, e.score) for e in expected]
        model = get(client, "/model")
        assert (
            not model["is_confirmed"]
            and model["figures"] == {"coverage": 1.0}
            and model["run_id"] == world.first.run_id
        )
        ready = get(client, "/ready")
        assert ready["status"] == "ready" and not ready["checks"]["registry"]["ok"]
        assert "a local copy" in ready["checks"]["model"]["detail"]


def test_a_registry_that_hangs_holds_nobody_up(
    world: World, home: Path, hung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # for the end of this test, which waits for the last try
    app = create_app(given.settings(home), world.database_url, hung)
    with given.serving(app, starts_within_s=5) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version, 5)
        assert get(client, "/ready")["status"] == "ready"


def test_the_copy_is_confirmed_or_replaced_once_the_registry_answers(world: World, home: Path) -> None:
    with given.serving(create_app(given.settings(home), world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: bool(given.model_version(client)) and get(client, "/model")["is_confirmed"])
        assert "local copy" not in get(client, "/ready")["checks"]["model"]["detail"]
    world.registry.promote(world.sea)
    try:
        with given.serving(create_app(given.settings(home), world.database_url, world.tracking_uri)) as client:
            given.wait_for(lambda: given.model_version(client) == world.sea.version)
            assert get(client, "/model")["is_confirmed"]
    finally:
        world.registry.promote(world.first)


def test_a_copy_is_dropped_when_the_registry_has_no_champion(world: World, home: Path) -> None:
    store = f"sqlite:///{home}/another.db"
    with given.serving(create_app(given.settings(home), world.database_url, store)) as client:
        # Before the copy is read the API is not ready either: only the text tells that the registry has answered.
        given.wait_for(lambda: "bookclub build" in client.get("/model").json().get("detail", ""), 30)
        problem(client.get("/model"), 503)


def cut(home: Path) -> None:
    idf = next((home / "serving" / "models").glob("*/idf.npy"))
    idf.write_bytes(idf.read_bytes()[:-4])


def point_outside(home: Path) -> None:
    path = home / "serving" / "models" / "champion.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"folder": "../../../../etc"}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a cut array": cut,
    "no files": lambda home: [shutil.rmtree(path) for path in (home / "serving" / "models").iterdir() if path.is_dir()],
    "half a note": lambda home: (home / "serving" / "models" / "champion.json").write_text('{"folder": "1'),
    "a note that leads outside": point_outside,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_copy_is_passed_over_and_fetched_anew(
    damage: Callable[[Path], object], world: World, home: Path
) -> None:
    damage(home)
    with given.serving(create_app(given.settings(home), world.database_url, AWAY)) as client:
        given.wait_for(lambda: "did not name" in problem(client.get("/ready"), 503)["checks"]["registry"]["detail"])
        problem(client.get("/model"), 503)
    with given.serving(create_app(given.settings(home), world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: given.model_version(client) == world.first.version, 20)
        assert get(client, "/model")["is_confirmed"]
