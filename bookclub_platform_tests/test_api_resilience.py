"""What becomes of the API when its model changes, or what it depends on breaks: for real, under real requests."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from bookclub_platform.core.served_models import served_models
from bookclub_platform.models import Registry
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of, problem
from bookclub_platform_tests.test_accounts import bearer, register
from bookclub_platform_tests.test_feedback import tell
from bookclub_platform_tests.test_serving_imports import process
from serving.app import create_app
from serving.recommender.champion import LONGEST_PAUSE_S, Champion, ChampionKeeper

# The fixtures, under the names by which tests ask for them.
world, after = given.world, given.after

# The champion ---------------------------------------------------------------------------------------------------------


def test_a_new_champion_is_taken_up_under_load_without_a_failed_or_mixed_answer(after: World) -> None:
    book_id = ids_of(after)[0]
    wanted = {
        version: [(found.book_id, found.score) for found in given.with_all_books(after, model).recommend(book_id, 8)]
        for version, model in after.models.items()
    }
    assert wanted[after.first.version] != wanted[after.sea.version]
    asked = {"book_ids": [book_id], "limit": 8, "in_stock": False}
    swapping = True

    def read_all_the_time() -> list[str]:
        versions = []
        with httpx.Client(base_url=after.client.base_url) as reader:
            while swapping:
                single = reader.get(f"/books/{book_id}/recommendations?limit=8&in_stock=false")
                many = reader.post("/recommendations:batch", json=asked)
                for answer, items in [(single, lambda a: a["items"]), (many, lambda a: a["results"][0]["items"])]:
                    assert answer.status_code == 200, answer.text
                    version = answer.json()["model"]["version"]
                    assert answer.headers["bookclub-model"] == f"tfidf_model/{version}"
                    found = [(item["book"]["id"], item["score"]) for item in items(answer.json())]
                    assert [found_id for found_id, _ in found] == [wanted_id for wanted_id, _ in wanted[version]]
                    assert [score for _, score in found] == pytest.approx([score for _, score in wanted[version]])
                    versions.append(version)
        return versions

    with ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read_all_the_time) for _ in range(4)]
        try:
            for version in [after.sea, after.first] * 5:
                after.registry.promote(version)
                given.wait_for(lambda: given.model_version(after.client) == version.version)  # noqa: B023 - called at once
        finally:
            swapping = False
        versions = [version for reader in readers for version in reader.result()]
    assert set(versions) == set(wanted) and len(versions) > 50


@pytest.mark.parametrize("path", ["/catalogue/{}", "/books/export", "/books", "/categories", "/stats/overview"])
def test_an_answer_holds_on_to_the_champion_that_it_began_with(
    world: World, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    token = register(world.client, path.strip("/{}").replace("/", "-"))
    address = path.format(ids_of(world)[0])
    before = world.client.get(address, headers=bearer(token))
    reads: list[bool] = []

    def there_and_gone(keeper: ChampionKeeper) -> Champion | None:
        reads.append(True)
        return keeper._champion if len(reads) % 2 else None  # as a registry that is another one now would have it

    monkeypatch.setattr(ChampionKeeper, "current", property(there_and_gone))
    answer = world.client.get(address, headers=bearer(token))
    assert (answer.status_code, answer.text) == (200, before.text)
    named = ("bookclub-model", "bookclub-books")
    assert [answer.headers.get(name) for name in named] == [before.headers.get(name) for name in named]
    assert len(reads) == 1


def test_a_damaged_champion_is_refused_and_the_one_before_serves_on(after: World) -> None:
    _, broken = given.train(after.database_url, after.registry)
    given.damage(after.mlflow_folder, broken)
    after.registry.promote(broken)
    given.wait_for(lambda: not get(after.client, "/ready")["checks"]["registry"]["ok"])
    ready = get(after.client, "/ready")
    assert ready["status"] == "ready"
    detail = ready["checks"]["registry"]["detail"]
    assert f"version {broken.version} cannot be used, version {after.first.version} stays in use" in detail
    assert get(after.client, f"/books/{ids_of(after)[0]}/recommendations")["model"]["version"] == after.first.version

    after.registry.promote(after.sea)
    given.wait_for(lambda: get(after.client, "/ready")["checks"]["registry"]["ok"])
    assert given.model_version(after.client) == after.sea.version


def test_late_feedback_is_taken_on_a_model_that_was_taken_back_and_after_a_restart(
    after: World, tmp_path: Path
) -> None:
    """Also where the database was away when the model came; not of one that never answered."""
    address, (book_id, *_) = after.database_url, ids_of(after)
    with given.without_postgres(address):
        after.registry.promote(after.sea)
        given.wait_for(lambda: given.model_version(after.client) == after.sea.version)
    given.wait_for(lambda: after.client.get("/ready").is_success)
    token = {"authorization": f"Bearer {register(after.client, 'latecomer')['access_token']}"}
    assert tell(after.client, token, book_id, f"tfidf_model/{after.sea.version}@1").is_success, "noted or not"
    noted = sa.select(served_models.c.version)
    given.wait_for(lambda: after.sea.version in [row.version for row in given.read(address, noted)])
    after.registry.promote(after.first)
    given.wait_for(lambda: given.model_version(after.client) == after.first.version)
    _, never = given.train(address, after.registry, only="sea")
    with given.serving(create_app(given.settings(tmp_path), address, "http://127.0.0.1:1")) as other:
        token = {"authorization": f"Bearer {register(other, 'later-still')['access_token']}"}
        for version in (after.first, after.sea):
            assert tell(other, token, book_id, f"tfidf_model/{version.version}@1").is_success
        problem(tell(other, token, book_id, f"tfidf_model/{never.version}@1"), 422)


def test_without_a_champion_books_are_served_and_recommendations_tell_what_to_do_until_there_is_one(
    world: World, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    with given.serving(create_app(given.settings(tmp_path), world.database_url, store)) as client:
        book_id = ids_of(world)[0]
        answer = client.get(f"/books/{book_id}/recommendations")
        assert "bookclub build" in problem(answer, 503)["detail"] and int(answer.headers["retry-after"]) > 0
        problem(client.post("/recommendations:batch", json={"book_ids": [book_id]}), 503)
        problem(client.get("/model"), 503)
        assert problem(client.get("/ready"), 503)["checks"]["database"]["ok"]
        assert "bookclub-model" not in client.get(f"/books/{book_id}").headers

        registry = Registry(store)
        model = world.models[world.first.version]
        registry.promote(registry.publish(model, {}, {}, {}, artifact_root=(tmp_path / "artifacts").as_uri()))
        given.wait_for(lambda: client.get("/ready").is_success)
        assert get(client, f"/books/{book_id}/recommendations")["items"]


@pytest.mark.parametrize("is_database_there", [True, False], ids=["no model", "nothing at all"])
def test_what_is_missing_is_told_to_anybody_without_a_host_a_user_a_path_or_a_setting(
    world: World, tmp_path: Path, is_database_there: bool, caplog: pytest.LogCaptureFixture
) -> None:
    away = "127.0.0.1:1"
    url = world.database_url if is_database_there else f"postgresql://dbuser:dbsecret@{away}/inside"
    settings = given.settings(tmp_path, dagster_url=f"http://{away}/dagster", database_url=url)
    inside = [str(tmp_path), str(tmp_path.parent), away, "127.0.0.1", "localhost", "dbuser", "dbsecret", "inside"]
    inside += ["mlflowuser", "mlsecret", "_URI", "BOOKCLUB_", "MLFLOW", "Errno", "Traceback", ".py", "psycopg"]
    with given.serving(create_app(settings, url, f"http://mlflowuser:mlsecret@{away}")) as client:
        given.wait_for(lambda: "MLflow" in client.get("/ready").text or not is_database_there, 20)
        found: dict[str, int] = {}
        for path, operations in client.get("/openapi.json").json()["paths"].items():
            for method, operation in operations.items():
                content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
                body = {"/recommendations:batch": {"book_ids": [1]}, "/recommendations": {"text": "whale"}}.get(path)
                body = body or next((one["value"] for one in content.get("examples", {}).values()), {"book_id": 1})
                asked = re.sub("{[^}]*}", "1", path) + ("?q=whale" if path.endswith("/search") else "")
                answer = client.request(method, asked, **({"json": body} if content else {}))
                found[f"{method} {path}"] = answer.status_code
                if answer.status_code >= 400 and path != "/ready":  # which the gateway shows to nobody
                    assert not [word for word in inside if word in answer.text], (path, answer.text)
        for page in ("/catalogue", "/catalogue?q=whale", "/catalogue/1", "/report", "/static/none", "/covers/a/b.jpg"):
            answer = client.get(page)
            assert answer.is_success or not [word for word in inside if word in answer.text], (page, answer.text)
    missing = {"get /books/{book_id}/recommendations", "post /recommendations", "get /model", "get /books/search"}
    assert missing <= {asked for asked, status in found.items() if status == 503} and found["get /report"] == 404
    assert ("get /books" in {asked for asked, status in found.items() if status == 503}) == (not is_database_there)
    assert "mlflowuser" in caplog.text and "mlsecret" not in caplog.text, "the log says why"


def test_the_registry_may_go_away_and_the_model_in_use_serves_on(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    with given.mlflow_server(folder) as uri:
        registry = Registry(uri)
        registry.promote(registry.publish(world.models[world.first.version], {}, {}, {}, artifact_root=None))
        app = create_app(given.settings(tmp_path), world.database_url, uri)
        serving = given.serving(app)
        client = serving.__enter__()
        given.wait_for(lambda: client.get("/ready").is_success)
    try:
        given.wait_for(lambda: not get(client, "/ready")["checks"]["registry"]["ok"], 30)
        assert get(client, "/ready")["status"] == "ready"
        assert get(client, f"/books/{ids_of(world)[0]}/recommendations")["items"]
    finally:
        serving.__exit__(None, None, None)


def test_on_a_full_disk_the_model_in_use_serves_on_and_the_next_comes_once_there_is_room(
    world: World, tmp_path: Path
) -> None:
    port = given.free_port()
    variables = {"BOOKCLUB_DATABASE_URL": world.database_url, "MLFLOW_TRACKING_URI": world.tracking_uri}
    variables |= {"BOOKCLUB_API_PORT": str(port), "BOOKCLUB_MODEL_POLL_S": "0.2"}
    with (
        process(["-m", "serving"], tmp_path, **variables) as serving,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client,
    ):
        given.wait_for(lambda: given.is_up(f"http://127.0.0.1:{port}/ready"), 60)
        assert given.model_version(client) == world.first.version
        if not hasattr(psutil.Process, "rlimit"):
            pytest.skip("only Linux lets a file of another process be told full")
        psutil.Process(serving.pid).rlimit(psutil.RLIMIT_FSIZE, (256, -1))  # no file takes more than 256 bytes
        try:
            world.registry.promote(world.sea)
            given.wait_for(lambda: not get(client, "/ready")["checks"]["registry"]["ok"])
            ready = get(client, "/ready")
            assert ready["status"] == "ready"
            detail = ready["checks"]["registry"]["detail"]
            assert f"version {world.first.version} stays in use" in detail and "File too large" in detail
            given.wait_for(lambda: not get(client, "/ready")["checks"]["disk"]["ok"])
            assert "cannot be written to: File too large" in get(client, "/ready")["checks"]["disk"]["detail"]
            assert get(client, f"/books/{ids_of(world)[0]}/recommendations")["model"]["version"] == world.first.version
            psutil.Process(serving.pid).rlimit(psutil.RLIMIT_FSIZE, (-1, -1))
            # The pause before the next try has doubled with each that failed.
            given.wait_for(lambda: given.model_version(client) == world.sea.version, LONGEST_PAUSE_S + 30)
            given.wait_for(lambda: get(client, "/ready")["checks"]["disk"]["ok"])
        finally:
            world.registry.promote(world.first)
    given.wait_for(lambda: given.model_version(world.client) == world.first.version)


# Postgres -------------------------------------------------------------------------------------------------------------


def test_a_postgres_that_is_away_is_a_503_problem_at_once_and_heals_by_itself(world: World) -> None:
    book = f"/books/{ids_of(world)[0]}"
    get(world.client, book)  # so that there are connections to break
    with given.without_postgres(world.database_url):
        for path in (book, "/books", f"{book}/recommendations"):
            answer = world.client.get(path)
            assert problem(answer, 503)["type"] == "tag:bookclub,2026:database-unavailable"
            assert int(answer.headers["retry-after"]) > 0 and answer.elapsed.total_seconds() < 2
        assert not problem(world.client.get("/ready"), 503)["checks"]["database"]["ok"]
        assert get(world.client, "/health") == {"status": "ok"}
    assert get(world.client, book)


def test_connections_that_a_restarted_postgres_dropped_cost_no_answer(world: World) -> None:
    book = f"/books/{ids_of(world)[0]}"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: get(world.client, book), range(40)))  # so that there are several connections
    dropped = sa.text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    with sa.create_engine(world.database_url, poolclass=sa.NullPool).connect() as connection:
        assert connection.scalar(dropped) > 1
    for _ in range(20):
        get(world.client, book)


def test_a_postgres_that_is_stuck_is_a_503_problem_within_seconds(world: World) -> None:
    with sa.create_engine(world.database_url, poolclass=sa.NullPool).begin() as connection:
        connection.execute(sa.text("LOCK TABLE bookclub.loads IN ACCESS EXCLUSIVE MODE"))
        answer = world.client.get("/books")
    problem(answer, 503)
    assert answer.elapsed.total_seconds() < 6
    assert get(world.client, "/books")


def test_a_database_without_tables_is_a_503_problem_that_says_what_makes_them(
    postgres_url: str, tmp_path: Path
) -> None:
    bare = sa.make_url(postgres_url).set(database="postgres").render_as_string(hide_password=False)
    with given.serving(create_app(given.settings(tmp_path), bare, f"sqlite:///{tmp_path}/mlflow.db")) as client:
        assert "bookclub build" in problem(client.get("/books"), 503)["detail"]
