"""What others build on the API: a client made from its description, the data scientist's example, the description."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import World, get, ids_of
from serving.openapi.examples import example_of

world = given.world

ROOT = Path(__file__).parents[1]
NAME, PASSWORD = "client", "four words of mine"
# Of these no value is one of every catalogue.
OF_ONE_CATALOGUE = {"cursor", "category", "source", "data_version"}


@pytest.fixture(scope="module")
def document(world: World) -> dict[str, Any]:
    assert world.client.post("/register", json={"username": NAME, "password": PASSWORD}).is_success
    found: dict[str, Any] = get(world.client, "/openapi.json")
    return found


@pytest.fixture(scope="module")
def made(document: dict[str, Any], world: World, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a package that openapi-python-client has made."""
    folder = tmp_path_factory.mktemp("made") / "bookclub_client"
    command = [
        sys.executable,
        "-m",
        "openapi_python_client",
        "generate",
        "--meta",
        "none",
        "--output-path",
        str(folder),
    ]
    done = subprocess.run(
        [*command, "--url", f"{world.client.base_url}/openapi.json"],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},  # it calls ruff
    )
    told = done.stdout + done.stderr
    assert done.returncode == 0 and "warning" not in told.lower(), told
    sys.path.insert(0, str(folder.parent))
    return folder.name


def test_a_generated_client_logs_in_pages_recommends_and_tells_feedback(made: str, world: World) -> None:
    def of(module: str) -> Any:
        return importlib.import_module(f"{made}.{module}")

    client, models, base = of("client"), of("models"), str(world.client.base_url).rstrip("/")
    anonymous = client.Client(base_url=base)
    token = of("api.accounts.login").sync(client=anonymous, body=models.LoginForm(username=NAME, password=PASSWORD))
    page = of("api.books.list_books").sync(client=anonymous, sort=models.ListBooksSort("-price"), min_rating=4, limit=3)
    assert [book.price for book in page.items] == sorted((book.price for book in page.items), reverse=True)
    following = of("api.books.list_books").sync(
        client=anonymous, sort=models.ListBooksSort("-price"), min_rating=4, limit=3, cursor=page.next_
    )
    assert not {book.id for book in page.items} & {book.id for book in following.items}
    assert of("api.books.get_overview").sync(client=anonymous).books == 48
    found = of("api.recommendations.recommend").sync(page.items[0].id, client=anonymous, limit=2)
    event = models.FeedbackEvent.from_dict(
        {
            "event_id": "0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10",
            "kind": "liked",
            "recommendation_id": found.id,
            "book_id": found.items[0].book.id,
        }
    )
    known = client.AuthenticatedClient(base_url=base, token=token.access_token)
    told = of("api.recommendations.add_feedback").sync(client=known, body=models.FeedbackRequest(events=[event]))
    assert (told.stored, told.known) == (1, 0)
    asked = models.ReaderRequest(liked=[page.items[0].id, page.items[1].id], limit=3)
    assert len(of("api.recommendations.recommend_to_reader").sync(client=anonymous, body=asked).items) == 3
    assert models.ListBooksSort.PRICE_DOWN.value == "-price" and models.LoginFormGrantType.LEFT_OUT.value == ""
    whole = of("api.books.export_books").sync_detailed(client=known).content
    assert len(whole.splitlines()) == 48
    missing = of("api.books.get_book").sync(999999, client=anonymous)
    assert (missing.status, missing.title) == (404, "Unknown book")


def test_every_route_is_in_a_generated_client(made: str, document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for route in operations.values():
            if path != "/fault":
                importlib.import_module(f"{made}.api.{route['tags'][0].lower()}.{route['operationId']}")


def test_the_example_of_the_data_scientist_runs_as_it_is(document: dict[str, Any], world: World) -> None:
    variables = {"BOOKCLUB_API": str(world.client.base_url), "BOOKCLUB_USER": NAME, "BOOKCLUB_PASSWORD": PASSWORD}
    command = [sys.executable, str(ROOT / "examples" / "analysis.py")]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "48 books of data version 4" in done.stdout
    correlation = get(world.client, "/stats/overview")["price_rating_correlation"]
    assert f"Correlation of price and stars: {correlation:.3f}" in done.stdout
    dearest = get(world.client, "/books", sort="-price", limit=100)["items"]
    first = min(book["id"] for book in dearest if book["price"] == dearest[0]["price"])
    for item in get(world.client, f"/books/{first}/recommendations", limit=5)["items"]:
        assert item["book"]["title"] in done.stdout


def test_every_route_has_an_example_that_its_schema_accepts(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    names = [route["operationId"] for by in document["paths"].values() for route in by.values()]
    assert len(names) == len(set(names))
    for path, operations in document["paths"].items():
        for route in operations.values():
            for parameter in route.get("parameters", []):
                told = parameter["schema"].keys() | parameter.keys()
                assert parameter["description"], (path, parameter["name"])
                is_plain = told & {"examples", "example", "default", "enum"} or "boolean" in str(parameter["schema"])
                assert is_plain or parameter["name"] in OF_ONE_CATALOGUE, (path, parameter["name"])
            for body in [route.get("requestBody", {}), *route["responses"].values()]:
                for kind, content in body.get("content", {}).items():
                    shown = [content["example"]] if "example" in content else []
                    shown += [example["value"] for example in content.get("examples", {}).values()]
                    assert shown or content["schema"].get("format") == "binary", (path, kind)
                    schema = content.get("schema", {}) | {"components": document["components"]}
                    for example in shown:
                        jsonschema.Draft202012Validator(schema).validate(example)


@pytest.mark.parametrize("path", ["/books", "/books/search", "/books/{book_id}/recommendations"])
def test_who_tries_all_examples_of_a_list_at_once_finds_books(
    document: dict[str, Any], world: World, path: str
) -> None:
    schemas = document["components"]["schemas"]
    asked = {
        parameter["name"]: example_of(parameter["schema"], schemas)
        for parameter in document["paths"][path]["get"]["parameters"]
        if parameter["in"] == "query" and parameter["schema"].keys() & {"examples", "default"}
    }
    assert len(asked) > 5
    assert get(world.client, path.format(book_id=ids_of(world)[0]), **asked)["items"]


def test_what_the_examples_ask_is_answered(document: dict[str, Any], world: World) -> None:
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    answer = world.client.post("/predict", json=example | {"book_id": ids_of(world)[0]})
    assert answer.is_success and len(answer.json()["ids"]) == example["limit"]
