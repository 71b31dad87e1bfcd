"""Whether /openapi.json says what the API does: whoever has it alone should have to guess nothing."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from bookclub_platform.core.settings import Settings
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import PROBLEM, World, get
from serving.access.policies import TRIES
from serving.app import create_app
from serving.http.digits import MAX_ID
from serving.http.problem_kinds import KINDS
from serving.openapi.examples import example_of
from serving.schemas.cursor import _FORM
from serving.schemas.rules import RULES

world = given.world

ROOT = Path(__file__).parents[1]
KIND = "tag:bookclub,2026:"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
LOGIN = {"username": "ada@shop.example", "password": "four words of yours"}  # as the examples have it
RAISES = {"Problem", "problems.Problem", "super().__init__"}
# What the examples ask where nothing like it is here, and the kinds of problems that say so.
ABSENT = {
    "post /token/refresh": "refresh-refused",
    "post /crawls": "insufficient-scope",
    "get /crawls/{crawl_id}": "insufficient-scope",
    "get /segments/{segment_id}": "other-model",
    "get /report": "no-report",
}


class Operation(dict[str, Any]):
    """One operation of the document, with its name and all schemas."""

    def __init__(self, name: str, document: dict[str, Any]) -> None:
        self.name, self.components = name, document["components"]
        self.method, self.path = name.split()
        super().__init__(document["paths"][self.path][self.method])

    def send(self, client: httpx.Client, token: str) -> httpx.Response:
        """The answer to what the examples ask: each parameter and the body, as they are."""
        path, query = self.path, {}
        for parameter in self.get("parameters", []):
            if not parameter["required"] and not parameter["schema"].keys() & {"examples", "default"}:
                continue
            example = example_of(parameter["schema"], self.components["schemas"])
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", str(example))
            elif parameter["in"] == "query" and example is not None:
                query[parameter["name"]] = example
        ((kind, content),) = self.get("requestBody", {"content": {None: {}}})["content"].items()
        body = {FORM: "data", JSON: "json", None: None}[kind]
        sent = {body: content["example"]} if body else {}
        if self.path == "/feedback" and client.get("/ready").is_success:
            asked = client.get("/books/1/recommendations", headers={"authorization": f"Bearer {token}"})
            sent = {"json": {"events": [sent["json"]["events"][0] | {"recommendation_id": asked.json()["id"]}]}}
        return client.request(
            self.method, path, params=query, headers={"authorization": f"Bearer {token}"}, timeout=20, **sent
        )

    def check(self, answer: httpx.Response) -> None:
        """That the status, the headers and the body of `answer` are those described."""
        described = self["responses"][str(answer.status_code)]
        known = {name.lower() for name in self.components["headers"]}
        told = {name.lower() for name in described["headers"]}
        sent = answer.headers.keys() & known
        assert told <= sent <= told | {"cache-control"}, self.name
        content = described.get("content", {})
        if not content:
            assert not answer.content
            return
        kind = next(kind for kind in content if answer.headers["content-type"].startswith(kind))
        if "json" in kind and "ndjson" not in kind:
            schema = content[kind]["schema"] | {"components": self.components}
            jsonschema.Draft202012Validator(schema).validate(answer.json())


@pytest.fixture(scope="module")
def document(world: World) -> dict[str, Any]:
    found: dict[str, Any] = get(world.client, "/openapi.json")
    return found


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> list[Operation]:
    return [Operation(f"{method} {path}", document) for path, by in document["paths"].items() for method in by]


def raised() -> Iterator[str]:
    """Each kind of problem that the source of the API raises as such."""
    for file in (ROOT / "serving").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in RAISES and node.args:
                kind = node.args[0]
                if isinstance(kind, ast.Constant) and re.fullmatch("[a-z-]+", kind.value):  # else a text of its own
                    yield kind.value


def test_every_kind_of_problem_is_documented_where_it_may_come(operations: list[Operation]) -> None:
    by_other_ways = {"invalid-request", "database-unavailable", "no-model"}  # an error that becomes a problem
    of_tokens = {"no-token", "expired-token", "invalid-token", "ended-session"}
    assert {*raised()} | by_other_ways | of_tokens == KINDS.keys()
    shown = set()
    for operation in operations:
        for status, described in operation["responses"].items():
            for example in described.get("content", {}).get(PROBLEM, {}).get("examples", {}).values():
                assert example["value"]["status"] == int(status)
                assert "{" in operation.path or example["value"]["instance"] == operation.path
                shown.add(example["value"]["type"].removeprefix(KIND))
    assert shown - {"about:blank"} == {kind for kind, of in KINDS.items() if not of.is_for_readers}


def test_what_each_example_asks_is_answered_as_described(
    world: World, operations: list[Operation], tmp_path: Path
) -> None:
    by_name = {operation.name: operation for operation in operations if operation.path != "/fault"}
    first = ["post /register", "post /login", "post /feedback"]
    last = ["post /logout", "delete /account", "post /password"]
    middle = [name for name in by_name if name not in first + last]
    limits = dict.fromkeys(["anonymous_per_minute", "account_per_minute", "logins_per_minute"], 10_000)
    settings = given.settings(tmp_path, answer_cache_mb=8, require_login=True, registrations_per_hour=10, **limits)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        given.wait_for(lambda: client.get("/ready").is_success)
        for name in first + middle + last:
            operation = by_name[name]
            if name == "post /password":  # of the account that was deleted before
                assert client.post("/register", json=LOGIN).is_success
            token = client.post("/login", data=LOGIN).json()["access_token"] if name != "post /register" else "none"
            answer = operation.send(client, token)
            operation.check(answer)
            if not answer.is_success:
                assert answer.json()["type"] == KIND + ABSENT.get(name, "nothing"), (name, answer.text)
                continue
            again = {"if-none-match": answer.headers.get("etag", ""), "authorization": f"Bearer {token}"}
            assert ("304" in operation["responses"]) == ("etag" in answer.headers), name
            if "etag" in answer.headers:
                same = client.get(str(answer.request.url), headers=again)
                assert same.status_code == 304, name
                operation.check(same)


def test_what_is_too_much_and_what_is_away_is_answered_as_described(
    world: World, operations: list[Operation], tmp_path: Path
) -> None:
    routes = [operation for operation in operations if operation.path != "/fault"]
    seen: dict[str, set[int]] = {operation.name: set() for operation in routes}
    quotas = ["anonymous_per_minute", "account_per_minute", "logins_per_minute", "registrations_per_hour"]
    nowhere = "postgresql://nobody@127.0.0.1:1/none", "http://127.0.0.1:1"
    keys = given.settings(
        tmp_path / "one", **dict.fromkeys(quotas, 10_000)
    )  # of the same home, so that tokens of the one are good for the other
    with given.serving(create_app(keys, world.database_url, nowhere[1])) as client:
        token = client.post("/register", json=LOGIN | {"username": "everywhere"}).json()["access_token"]
    with given.serving(create_app(keys, *nowhere)) as away:
        for operation in routes:
            answer = operation.send(away, token)
            operation.check(answer)
            seen[operation.name].add(answer.status_code)
            if "requestBody" in operation:
                ((kind, _),) = operation["requestBody"]["content"].items()
                headers = {"authorization": f"Bearer {token}", "content-type": kind}
                large = away.request(operation.method, operation.path, content=b" " * 70_000, headers=headers)
                assert given.problem(large, 413)
                operation.check(large)
    with given.serving(create_app(given.settings(tmp_path / "other", **dict.fromkeys(quotas, 1)), *nowhere)) as limited:
        tries = [operation for operation in routes if operation.name == "post /register"] * TRIES
        for operation in routes * 2 + tries:
            answer = operation.send(limited, "none")
            operation.check(answer)
            seen[operation.name].add(answer.status_code)
    without = {name for name, codes in seen.items() if 503 not in codes}
    assert without == {"get /health", "get /metrics", "get /report", "post /crawls", "get /crawls/{crawl_id}"}
    assert {name for name, codes in seen.items() if 429 not in codes} == {"get /health", "get /metrics", "get /ready"}


def parts(of: Any) -> Iterator[dict[str, Any]]:
    """Every object in a part of the document."""
    if isinstance(of, dict):
        yield of
    for part in of.values() if isinstance(of, dict) else of if isinstance(of, list) else ():
        yield from parts(part)


def test_generators_of_clients_find_the_width_of_each_number_and_no_choice_beside_fields(
    document: dict[str, Any],
) -> None:
    sized = [part for part in parts(document) if part.get("type") == "integer"]
    assert len(sized) > 70 and {part.get("format") for part in sized} == {"int32", "int64"}
    for schema in document["components"]["schemas"].values():
        assert not schema.keys() & {"oneOf", "anyOf", "allOf"}, schema.get("title")
        for name, field in schema.get("properties", {}).items():
            if name in {"id", "book_id", "for_book_id", "ids", "book_ids", "liked", "exclude"}:
                for part in parts(field):
                    if part.get("type") == "integer":
                        assert (part["format"], part["minimum"], part["maximum"]) == ("int64", 1, MAX_ID), name
    assert document["components"]["schemas"]["FieldFault"]["properties"]["loc"]["items"] == {"type": "string"}
    assert document["servers"] == [{"url": "/"}]


def test_a_text_of_another_form_is_refused_in_words(world: World, document: dict[str, Any]) -> None:
    patterns = {part["pattern"] for part in parts(document) if isinstance(part.get("pattern"), str)}
    assert len(patterns) > 8 and patterns - RULES.keys() <= {_FORM}, "the cursor of /books has a validator of its own"
    for path in (
        "/books?category=%09",
        "/books/search?q=%20",
        "/segments/x",
        "/books?cursor=x",
        "/books/search?q=a&cursor=x",
    ):
        (fault,) = given.problem(world.client.get(path), 422)["errors"]
        assert "pattern" not in fault["msg"] and "[" not in fault["msg"], fault


def test_generators_of_clients_find_nothing_that_is_not_there(operations: list[Operation]) -> None:
    problem = operations[0].components["schemas"]["ProblemDetails"]
    absent = set(problem["properties"]) - set(problem["required"])
    assert {"errors", "violated-policies"} <= absent
    assert not [name for name, member in problem["properties"].items() if "default" in member]
    for operation in operations:
        for parameter in operation.get("parameters", []):
            kinds = parameter["schema"].get("anyOf", [])
            assert {"type": "null"} not in kinds, (operation.name, parameter["name"])


def test_routes_and_answers_stand_in_the_order_in_which_they_are_looked_for(operations: list[Operation]) -> None:
    paths = [operation.path for operation in operations]
    assert paths == sorted(paths) and paths.index("/books") < paths.index("/books/search")
    for operation in operations:
        assert list(operation["responses"]) == sorted(operation["responses"]) and "security" in operation
    (login,) = (operation for operation in operations if operation.path == "/login")
    assert login["security"] == []


def test_what_any_request_may_come_to_is_told_at_each_route(operations: list[Operation]) -> None:
    for operation in operations:
        assert operation["responses"].keys() >= {"400", "414", "422", "431", "500"}, operation.name
        assert ("415" in operation["responses"]) == ("requestBody" in operation), operation.name


def test_examples_of_problems_speak_of_their_route(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, anonymous_per_minute=77)
    told = create_app(settings, "postgresql://nobody@127.0.0.1:1/none", "http://127.0.0.1:1").openapi()
    for line in (
        "| `anonymous` | requests without a valid token, by address | 77 | 60 s |",
        "| `login-name` | wrong passwords for one name from one address | 10 | 900 s |",
    ):
        assert line in told["info"]["description"]
    violated, wanted = {}, {}
    for path, by in told["paths"].items():
        for method, route in by.items():
            for described in route["responses"].values():
                for kind, example in described.get("content", {}).get(PROBLEM, {}).get("examples", {}).items():
                    if kind == "quota-exceeded":
                        (quota,) = violated[f"{method} {path}"] = example["value"]["violated-policies"]
                        assert f"The quota {quota} is exhausted" in example["value"]["detail"]
                    if kind == "invalid-request":
                        ((where, name),) = [fault["loc"] for fault in example["value"]["errors"]]
                        known = {parameter["name"] for parameter in route.get("parameters", [])}
                        assert name in known or name == "colour" or (where == "body" and "requestBody" in route), path
            if "415" in route["responses"]:
                (example,) = route["responses"]["415"]["content"][PROBLEM]["examples"].values()
                wanted[f"{method} {path}"] = example["value"]["detail"]
    quotas = {
        "get /books": "anonymous",
        "post /login": "login",
        "post /register": "register",
        "post /feedback": "feedback",
        "get /books/export": "account",
        "get /account": "account",
        "delete /account": "login",
    }
    assert {name: violated[name] for name in quotas} == {name: [quota] for name, quota in quotas.items()}
    assert [name for name, detail in wanted.items() if FORM in detail] == ["post /login"]


def test_a_body_of_another_kind_is_refused_with_the_kind_that_is_taken(world: World) -> None:
    refused = given.problem(world.client.post("/login", json=LOGIN), 415)
    assert FORM in refused["detail"]
    refused = given.problem(world.client.post("/register", data=LOGIN), 415)
    assert JSON in refused["detail"]
    broken = world.client.post("/predict", content='{"book_id": 1,}', headers={"content-type": JSON})
    assert "Not JSON: " in given.problem(broken, 422)["detail"]


def test_who_may_not_log_in_for_now_may_still_refresh(world: World, tmp_path: Path) -> None:
    settings = given.settings(tmp_path, logins_per_minute=1)
    with given.serving(create_app(settings, world.database_url, world.tracking_uri)) as client:
        session = client.post("/register", json=LOGIN | {"username": "traveller"}).json()
        codes = [client.post("/login", data=LOGIN).status_code for _ in range(2)]
        assert codes[1] == 429
        for _ in range(3):
            answer = client.post("/token/refresh", json={"refresh_token": session["refresh_token"]})
            assert answer.is_success
            session = answer.json()


def test_what_heals_by_itself_says_when_to_ask_again(tmp_path: Path) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/none", "http://127.0.0.1:1"
    with given.serving(create_app(given.settings(tmp_path), *nowhere)) as client:
        for path in ("/ready", "/books", "/model", "/books/1/recommendations"):
            answer = client.get(path)
            given.problem(answer, 503)
            assert int(answer.headers["retry-after"]) > 0


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_the_example_of_the_app_runs_as_it_is(world: World) -> None:
    assert world.client.post("/register", json=LOGIN | {"username": "app"}).is_success
    account = {"BOOKCLUB_USER": "app", "BOOKCLUB_PASSWORD": LOGIN["password"]}
    command = ["node", str(ROOT / "examples" / "app.mjs")]
    variables = os.environ | account | {"BOOKCLUB_API": str(world.client.base_url).rstrip("/")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    best = get(world.client, "/books", sort="-rating", in_stock=True, limit=1)["items"][0]
    assert f"***** {best['title']}, {best['price']} GBP" in done.stdout
    for item in get(world.client, f"/books/{best['id']}/recommendations", limit=3)["items"]:
        assert f"Like it: {item['book']['title']} (" in done.stdout
    assert "3 events told" in done.stdout
