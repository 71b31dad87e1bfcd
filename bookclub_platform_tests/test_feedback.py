"""What readers tell: one of them rules nothing, fills nothing, and what is old is forgotten. On a real Postgres."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa

from bookclub_platform.core import accounts
from bookclub_platform.core.feedback import Event, Kind, add_events, feedback, forget_events
from bookclub_platform.core.served_models import note_served
from bookclub_platform.core.tables import select_books
from bookclub_platform.sensors import retention_sensor
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import get, problem
from bookclub_platform_tests.test_accounts import register
from serving import feedback as serving_feedback
from serving.app import create_app

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def database(database_url: str) -> Iterator[sa.Engine]:
    given.load(database_url, "sea", given.catalogue()["sea"])
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        note_served(connection, [("tfidf_model", "1")])
    yield engine
    engine.dispose()


@pytest.fixture
def books(database: sa.Engine) -> Iterator[list[int]]:
    """Ids of the books; of readers nothing is known before and after."""
    with database.begin() as connection:
        yield [row.id for row in connection.execute(select_books())]
    with database.begin() as connection:
        connection.execute(sa.delete(feedback))


def told(kind: Kind, book_id: int, ago: timedelta = timedelta(0)) -> Event:
    return Event(uuid.uuid4(), kind, "tfidf_model", "1", 1, book_id, None, 1, datetime.now(UTC) - ago)


def reader(connection: sa.Connection, *events: Event) -> int:
    """A new account that told these."""
    user_id = accounts.add_user(connection, f"reader-{uuid.uuid4().hex[:12]}", "no hash", accounts.FOR_ANYONE)
    assert user_id is not None
    if events:
        add_events(connection, user_id, events)
    return user_id


def popular(client: httpx.Client) -> list[tuple[int, int]]:
    return [(row["book"]["id"], row["interest"]) for row in get(client, "/books/popular")["items"]]


def test_popular_is_what_many_readers_want_and_not_what_one_says_often(
    database: sa.Engine, books: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shouted, wanted, of_disabled, old, seen = books[:5]
    with database.begin() as connection:
        reader(connection, *(told("liked", shouted) for _ in range(500)))
        for kind in ("liked", "clicked", "swapped"):
            reader(connection, told(kind, wanted), told("clicked", wanted))
            reader(connection, told("liked", old, timedelta(days=31)), told("shown", seen))
            gone = reader(connection, told("liked", of_disabled), told("liked", wanted))
            connection.execute(
                sa.update(accounts.users).where(accounts.users.c.id == gone).values(disabled_at=sa.func.now())
            )
    address = database.url.render_as_string(hide_password=False)
    with given.serving(create_app(given.settings(tmp_path), address, NOWHERE)) as client:
        assert popular(client) == [(wanted, 3), (shouted, 1)]
        known = {"if-none-match": client.get("/books/popular").headers["etag"]}
        same = client.get("/books/popular", headers=known)
        assert (same.status_code, same.headers["cache-control"]) == (304, "public, max-age=60")
        with database.begin() as connection:
            for _ in range(4):
                reader(connection, told("liked", seen))
        assert popular(client) == [(wanted, 3), (shouted, 1)], "counted once a minute"
        sea = given.catalogue()["sea"]
        given.load(address, "sea", [sea[0], *sea[2:]])
        assert popular(client) == [(shouted, 1)], "a book that left is not shown for another minute"
        given.load(address, "sea", sea)
        monkeypatch.setattr(serving_feedback, "COUNTED_FOR_S", 0)
        assert popular(client) == [(seen, 4), (wanted, 3), (shouted, 1)]
        named = [replace(told("liked", shouted), reader=f"reader {number % 5}") for number in range(10)]
        with database.begin() as connection:
            reader(connection, *named)
        assert popular(client)[0] == (shouted, 6), "a shop tells of many readers"
        with database.begin() as connection:
            for _ in range(3):
                reader(connection, told("liked", seen))
        assert client.get("/books/popular", headers=known).status_code == 200
        assert get(client, "/books/popular", limit=1)["items"][0]["book"]["id"] == seen


def test_an_account_tells_only_so_much_a_day(database: sa.Engine, books: list[int], tmp_path: Path) -> None:
    def events(count: int) -> dict[str, Any]:
        one = {"kind": "liked", "recommendation_id": "tfidf_model/1@1", "book_id": books[0]}
        return {"events": [one | {"event_id": str(uuid.uuid4())} for _ in range(count)]}

    settings, address = given.settings(tmp_path, feedback_per_day=150), database.url.render_as_string(False)
    with given.serving(create_app(settings, address, NOWHERE)) as client:
        loud, other = (
            {"authorization": f"Bearer {register(client, name)['access_token']}"} for name in ("loud", "other")
        )
        assert client.post("/feedback", json=events(100), headers=loud).json() == {"stored": 100, "known": 0}
        refused = client.post("/feedback", json=events(100), headers=loud)
        assert problem(refused, 429)["violated-policies"] == ["feedback"]
        assert "has 50 left of 150 events in 86400 s." in refused.json()["detail"]
        assert 86_000 < int(refused.headers["retry-after"]) <= 86_401, "a day after those that were told"
        elsewhere = events(50)
        elsewhere["events"][7]["book_id"] = 2**40
        problem(client.post("/feedback", json=elsewhere, headers=loud), 404)  # refused as a whole: counts as nothing
        assert client.post("/feedback", json=events(50), headers=loud).json()["stored"] == 50
        problem(client.post("/feedback", json=events(1), headers=loud), 429)
        assert client.post("/feedback", json=events(100), headers=other).json()["stored"] == 100
    with database.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(feedback)) == 250


def test_what_is_too_old_is_forgotten_a_part_at_a_time_and_by_itself(
    database: sa.Engine, books: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as connection:
        reader(connection, *(told("shown", books[0], timedelta(days=days)) for days in (0, 30, 99, 101, 102, 500)))
        assert [forget_events(connection, timedelta(days=100), at_most=2) for _ in range(3)] == [2, 1, 0]
        left = connection.scalars(sa.select(feedback.c.happened_at)).all()
        assert len(left) == 3 and min(left) > datetime.now(UTC) - timedelta(days=100)
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", database.url.render_as_string(False))
    sensor = retention_sensor(given.settings(tmp_path, feedback_days=31))
    assert (
        sensor.evaluate_tick(dg.build_sensor_context()).skip_message
        == "1 events were older than 31 days, 0 sessions were over."
    )
    with database.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(feedback)) == 2


def tell(client: httpx.Client, token: dict[str, str], book_id: int, *ids: str) -> httpx.Response:
    """What comes of one event of each recommendation."""
    one = {"kind": "liked", "book_id": book_id}
    events = [one | {"event_id": str(uuid.uuid4()), "recommendation_id": told} for told in ids]
    return client.post("/feedback", json={"events": events}, headers=token)


def test_a_recommendation_that_cannot_have_been_given_out_is_refused_by_its_place(
    database: sa.Engine, books: list[int], tmp_path: Path
) -> None:
    with given.serving(create_app(given.settings(tmp_path), database.url.render_as_string(False), NOWHERE)) as client:
        token = {"authorization": f"Bearer {register(client, 'inventor')['access_token']}"}
        newest = get(client, "/books")["data_version"]
        good = f"tfidf_model/1@{newest}"
        assert tell(client, token, books[0], good, "tfidf_model/1@0").json() == {"stored": 2, "known": 0}
        ahead = int(newest) + 1
        wrong = ["other_model/1@1", "tfidf_model/9@1", "tfidf_model/01@1", f"tfidf_model/1@{ahead}"]
        for invented in wrong:
            refused = problem(tell(client, token, books[0], good, invented), 422)
            assert refused["type"].endswith(":invalid-request")
            assert [fault["loc"] for fault in refused["errors"]] == [["body", "events", "1", "recommendation_id"]]
        assert f"Data version {ahead} does not exist yet" in refused["detail"]
        assert len(problem(tell(client, token, books[0], *wrong), 422)["errors"]) == 4
    with database.begin() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(feedback)) == 2
