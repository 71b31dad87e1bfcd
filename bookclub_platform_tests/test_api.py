"""What the API answers, over real HTTP, on a real Postgres and a real MLflow server."""

from __future__ import annotations

import json
import re
from datetime import datetime

import httpx
import pytest

from bookclub_platform.core import tables
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import PROBLEM, World, get, ids_of, problem

# The fixtures, under the names by which tests ask for them.
world, client, after = given.world, given.client, given.after

# Books ----------------------------------------------------------------------------------------------------------------


def test_a_book_is_answered_with_every_column_of_the_table(world: World) -> None:
    (row,) = given.read(world.database_url, tables.select_book(ids_of(world)[3]))
    book = get(world.client, f"/books/{row.id}")
    assert list(book) == list(tables.books.c.keys())
    for name, value in row._mapping.items():
        found = datetime.fromisoformat(book[name]) if isinstance(value, datetime) else book[name]
        assert found == (float(value) if name == "price" else value), name
    assert f'"price":{float(row.price)},' in world.client.get(f"/books/{row.id}").text


def test_pages_joined_by_their_cursors_are_the_whole_catalogue(client: httpx.Client) -> None:
    pages = [get(client, "/books", limit=7)]
    while pages[-1]["next"]:
        pages.append(get(client, "/books", limit=7, cursor=pages[-1]["next"]))
    ids = [book["id"] for page in pages for book in page["items"]]
    assert (len(ids), ids) == (48, sorted(set(ids)))
    assert [len(page["items"]) for page in pages] == [7] * 6 + [6]
    assert {page["total"] for page in pages} == {48}


def test_a_last_page_that_is_full_has_no_next(client: httpx.Client) -> None:
    assert get(client, "/books", limit=12, category="sea")["next"] is None


def test_a_page_has_20_books_unless_told(client: httpx.Client) -> None:
    assert len(get(client, "/books")["items"]) == 20


def test_filters_narrow_items_and_total_alike(client: httpx.Client) -> None:
    sold_out = get(client, "/books", category="space", in_stock=False)
    assert [book["source_id"] for book in sold_out["items"]] == ["space-0", "space-4", "space-8"]
    assert sold_out["total"] == 3
    assert get(client, "/books", in_stock=True)["total"] == 36
    assert get(client, "/books", category="no-such")["items"] == []


def test_categories_come_with_their_counts(client: httpx.Client) -> None:
    found = get(client, "/categories")
    assert [row["category"] for row in found["items"]] == ["crime", "garden", "sea", "space"]
    assert found["items"][2] == {"category": "sea", "category_name": "Sea", "books": 12, "in_stock": 9}
    assert found["total"] == 4


def test_answers_about_books_name_data_and_model_in_their_headers(world: World) -> None:
    (data,) = given.read(world.database_url, tables.select_data_version())
    for path in ("/books", f"/books/{ids_of(world)[0]}", "/categories", f"/books/{ids_of(world)[0]}/recommendations"):
        headers = world.client.get(path).headers
        assert headers["bookclub-data-version"] == str(data[0])
        assert headers["bookclub-model"] == f"tfidf_model/{world.first.version}"


# Recommendations ------------------------------------------------------------------------------------------------------


def test_recommendations_are_those_of_the_model_with_their_books_and_reasons(world: World) -> None:
    book_id = ids_of(world)[0]
    answer = get(world.client, f"/books/{book_id}/recommendations", limit=5, in_stock=False)
    expected = world.models[world.first.version].recommend(book_id, 5)
    assert [(item["book"]["id"], item["score"]) for item in answer["items"]] == [(r.book_id, r.score) for r in expected]
    assert answer["items"][0]["why"] == [
        {"kind": why.kind, "value": why.value, "share": why.share} for why in expected[0].why
    ]
    assert answer["items"][0]["book"] == get(world.client, f"/books/{expected[0].book_id}")
    assert answer["model"] == {"name": "tfidf_model", "version": world.first.version, "run_id": world.first.run_id}
    assert (answer["book_id"], answer["data_version"], answer["reason"]) == (
        book_id,
        get(world.client, "/books")["data_version"],
        None,
    )


def test_ten_are_recommended_unless_told(world: World) -> None:
    assert len(get(world.client, f"/books/{ids_of(world)[0]}/recommendations")["items"]) == 10


def test_a_batch_gives_the_lists_of_its_books_in_the_order_asked(world: World) -> None:
    ids = [*reversed(ids_of(world)), ids_of(world, "crime")[0], ids_of(world)[0]]
    answer = world.client.post("/recommendations:batch", json={"book_ids": ids, "limit": 3}).json()
    assert [row["book_id"] for row in answer["results"]] == ids
    for row in answer["results"]:
        single = get(world.client, f"/books/{row['book_id']}/recommendations", limit=3)
        assert row["items"] == single["items"] and len(row["items"]) == 3
        assert (answer["model"], answer["data_version"]) == (single["model"], single["data_version"])


def test_a_delisted_book_is_known_but_neither_listed_nor_recommended_and_lists_stay_whole(after: World) -> None:
    asked, *_ = ids_of(after)
    path = f"/books/{asked}/recommendations?limit=6&in_stock=false"
    before = [item["book"]["id"] for item in get(after.client, path)["items"]]
    gone = set(before[:4])
    kept = [book for book in given.catalogue()["sea"] if book.source_id not in source_ids(after, gone)]
    given.load(after.database_url, "sea", kept)

    now = after.client.get(path).json()["items"]
    ranked = [found.book_id for found in after.models[after.first.version].recommend(asked, 100)]
    assert [item["book"]["id"] for item in now] == [book_id for book_id in ranked if book_id not in gone][:6]
    assert get(after.client, "/books", category="sea")["total"] == 8
    assert get(after.client, f"/books/{before[0]}")["delisted_at"] is not None
    assert get(after.client, f"/books/{before[0]}/recommendations", limit=6)["items"]
    batch = after.client.post(
        "/recommendations:batch", json={"book_ids": [before[0], asked], "limit": 6, "in_stock": False}
    ).json()
    assert batch["results"][1]["items"] == now


def source_ids(world: World, ids: set[int]) -> set[str]:
    return {row.source_id for row in given.read(world.database_url, tables.select_listed(sorted(ids)))}


# Problems -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/books/999999", "/books/9007199254740991", "/books/999999/recommendations"])
def test_an_unknown_book_is_a_404_problem(client: httpx.Client, path: str) -> None:
    assert problem(client.get(path), 404)["type"] == "tag:bookclub,2026:unknown-book"


def test_unknown_books_of_a_batch_are_a_404_problem_that_names_them(world: World) -> None:
    ids = [ids_of(world)[0], 999998, 999999]
    body = problem(world.client.post("/recommendations:batch", json={"book_ids": ids}), 404)
    assert (body["type"], body["book_ids"]) == ("tag:bookclub,2026:unknown-books", [999998, 999999])


@pytest.mark.parametrize(
    "path",
    [
        "/books/0",
        "/books/-1",
        "/books/9007199254740992",
        "/books/9223372036854775808",
        f"/books/{'9' * 5000}",
        "/books/abc/recommendations",
        "/books?limit=0",
        "/books?limit=101",
        "/books?cursor=",
        "/books?cursor=abc",
        "/books?cursor=%00",
        "/books?cursor=LTE",
        "/books?cursor=OTk5OTk5OTk5OTk5OTk5OTk5OTk",
        "/books?cursor=%C3%A9",
        "/books?category=%00",
        "/books?category=",
        f"/books?category={'x' * 201}",
        "/books?in_stock=perhaps",
        "/books?in_stok=true",
        "/books/1/recommendations?limit=101",
    ],
)
def test_what_cannot_be_asked_is_a_422_problem_that_names_the_parameter(client: httpx.Client, path: str) -> None:
    body = problem(client.get(path), 422)
    assert body["errors"][0]["loc"][-1] in {"book_id", "limit", "cursor", "category", "in_stock", "in_stok"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 422),
        ("{", 422),
        ("null", 422),
        ('{"limit":3}', 422),
        ('{"book_ids":[]}', 422),
        ('{"book_ids":[0]}', 422),
        ('{"book_ids":[NaN]}', 422),
        ('{"book_ids":[1e400]}', 422),
        ('{"book_ids":[true]}', 422),
        ('{"book_ids":["1"]}', 422),
        ('{"book_ids":[9223372036854775808]}', 422),
        (f'{{"book_ids":{list(range(1, 102))}}}', 422),
        ('{"book_ids":[1],"limit":101}', 422),
        ('{"book_ids":[1],"\\ud800":1}', 422),
        ('{"book_ids":[1],"colour":1}', 422),
        (f'{{"book_ids":{"[" * 20000}{"]" * 20000}}}', 400),
        (f'{{"book_ids":[{"9" * 5000}]}}', 400),
        (b'{"book_ids":[1], "\xff":1}', 400),
        ("[" * 100_000, 413),
    ],
)
def test_a_body_that_is_no_question_is_a_problem(client: httpx.Client, body: str | bytes, status: int) -> None:
    json_body = {"content-type": "application/json"}
    problem(client.post("/recommendations:batch", content=body, headers=json_body), status)


def test_a_body_without_announced_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    endless = (b" " * 4096 for _ in range(100))
    problem(client.post("/recommendations:batch", content=endless, headers={"content-type": "application/json"}), 413)


def test_a_body_that_is_not_called_json_is_a_415_problem(client: httpx.Client) -> None:
    answer = client.post("/recommendations:batch", content='{"book_ids":[1]}', headers={"content-type": "text/plain"})
    assert "application/json" in problem(answer, 415)["detail"]


def test_a_path_that_is_not_there_is_a_404_problem(client: httpx.Client) -> None:
    assert "/docs" in problem(client.get("/bookz"), 404)["detail"]


def test_a_method_that_is_not_taken_is_a_405_problem_that_says_which_is(client: httpx.Client) -> None:
    answer = client.put("/books")
    assert "GET" in problem(answer, 405)["detail"] and answer.headers["allow"] == "GET, HEAD"
    answer = client.get("/logout")
    assert "POST" in problem(answer, 405)["detail"] and answer.headers["allow"] == "POST"


def test_a_fault_of_the_server_is_a_500_problem_without_its_secrets(client: httpx.Client) -> None:
    answer = client.get("/fault")
    problem(answer, 500)
    assert "secret" not in answer.text and "RuntimeError" not in answer.text
    get(client, "/health")  # the next request on a kept connection must not be lost with it


# What describes itself ------------------------------------------------------------------------------------------------


def test_every_route_and_every_field_is_described(client: httpx.Client) -> None:
    document = get(client, "/openapi.json")
    routes = {f"{method} {path}": route for path, by in document["paths"].items() for method, route in by.items()}
    del routes["get /fault"]
    assert set(routes) == {
        "get /account",
        "delete /account",
        "get /books",
        "get /books/{book_id}",
        "get /books/{book_id}/history",
        "get /books/export",
        "get /books/search",
        "get /books/popular",
        "get /stats/overview",
        "get /stats/categories",
        "post /feedback",
        "post /predict",
        "post /crawls",
        "get /crawls/{crawl_id}",
        "get /books/{book_id}/recommendations",
        "post /recommendations",
        "post /recommendations:batch",
        "get /categories",
        "get /segments",
        "get /segments/{segment_id}",
        "get /model",
        "get /health",
        "get /ready",
        "get /metrics",
        "get /report",
        "post /register",
        "post /login",
        "post /token/refresh",
        "post /logout",
        "post /password",
    }
    for name, route in routes.items():
        assert route["summary"] and route["description"], name
        for status, answer in route["responses"].items():
            assert int(status) < 400 or list(answer["content"]) == [PROBLEM], (name, status)
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema["properties"].items():
            assert described.get("description"), f"{name}.{field}"
    assert "HTTPValidationError" not in json.dumps(document)


def test_the_model_in_use_is_described(world: World) -> None:
    model = get(world.client, "/model")
    assert (model["name"], model["version"], model["run_id"]) == (
        "tfidf_model",
        world.first.version,
        world.first.run_id,
    )
    assert (model["books"], model["tags"]["data_version"]) == (48, "4")
    assert "promoted_by" in world.registry.champion("tfidf_model").tags, "there is more than is told"
    assert model["tags"].keys() <= {"data_version", "promoted_at"}
    assert model["figures"] == {"coverage": 1.0}
    assert datetime.fromisoformat(model["registered_at"]) <= datetime.fromisoformat(model["serving_since"])


def test_docs_need_nothing_from_the_internet(client: httpx.Client) -> None:
    page = client.get("/docs").text
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert sources and all(client.get(source).is_success for source in sources if source.startswith("/"))
    assert not [source for source in sources if not source.startswith("/")]
    assert client.get("/").headers["location"] == "catalogue"


def test_metrics_count_requests_by_route_and_not_by_path(world: World) -> None:
    def count() -> float:
        found = re.search(
            r'bookclub_http_request_seconds_count{method="GET",route="/books/{book_id}",status="404"} (\S+)',
            world.client.get("/metrics").text,
        )
        return float(found[1]) if found else 0

    before = count()
    world.client.get("/books/777777")
    text = world.client.get("/metrics").text
    assert count() == before + 1
    assert "777777" not in text and f'version="{world.first.version}"' in text


# The report -----------------------------------------------------------------------------------------------------------


def test_without_a_report_the_answer_says_how_to_make_one(client: httpx.Client) -> None:
    body = problem(client.get("/report"), 404)
    assert body["type"].endswith(":no-report") and "catalogue_report" in body["detail"]


def test_the_report_comes_as_it_lies_there_and_may_load_and_run_nothing(world: World) -> None:
    report = world.home / "report" / "catalogue.html"
    report.parent.mkdir()
    report.write_text("<!doctype html><title>£</title>", encoding="utf-8")
    try:
        answer = world.client.get("/report")
    finally:
        report.unlink()
        report.parent.rmdir()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == "<!doctype html><title>£</title>"
    policy = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["img-src"] == "data:" and "script-src" not in policy
    assert "sandbox" in policy and "allow-scripts" not in policy["sandbox"]
    assert answer.headers["x-content-type-options"] == "nosniff"
