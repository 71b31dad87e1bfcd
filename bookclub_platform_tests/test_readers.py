"""What readers liked, as told to a real Postgres, judges real models: which pairs count, whose, and from when on."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from bookclub_platform.core import accounts, tables
from bookclub_platform.core.book import Book
from bookclub_platform.core.feedback import MOST_CLICKS, MOST_LIKES, Event, Kind, add_events, feedback, select_steps
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.models import BookText, Readers, Registry, Step, Tfidf, decide
from bookclub_platform.models._readers import MIN_QUERIES, MIN_READERS
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.api_fixtures import catalogue
from bookclub_platform_tests.mlflow_store import store_in

SHELVES, SUBJECTS, ABOUT_IT = 8, 64, 5
NUMBER = SUBJECTS * ABOUT_IT


def book(number: int) -> Book:
    """The books of a subject share two words, and stand on two shelves."""
    subject, at = divmod(number, ABOUT_IT)
    shelf = f"shelf-{(subject + at % 2) % SHELVES}"
    template = catalogue()["sea"][0]
    return replace(
        template,
        source_id=f"upc-{number}",
        upc=f"upc-{number}",
        title=f"Tale {number}",
        category=shelf,
        category_name=shelf.replace("-", " "),
        description=f"A word{subject}x and a thing{subject}y, with common{number % 7}z.",
        url=f"http://127.0.0.1/{number}",
    )


def rows() -> list[BookText]:
    books = [book(number) for number in range(NUMBER)]
    return [BookText(at, one.title, one.description, one.category, one.category_name) for at, one in enumerate(books)]


def alone(reader: int, *liked: int) -> list[Step]:
    """Each book found in another list: one that stands for itself."""
    return [Step(reader, number, number, True) for number in liked]


def readers_of_subjects(readers: int) -> list[Step]:
    random = np.random.default_rng(3)
    return [
        step
        for reader in range(readers)
        for step in alone(
            reader,
            *(reader % SUBJECTS * ABOUT_IT + random.choice(ABOUT_IT, 3, replace=False)).tolist(),
            *random.choice(NUMBER, 2, replace=False).tolist(),
        )
    ]


@pytest.fixture(scope="module")
def many() -> list[Step]:
    return readers_of_subjects(MIN_READERS)


@pytest.fixture(scope="module")
def judge(many: list[Step]) -> Readers:
    return Readers(rows(), many)


@pytest.fixture(scope="module")
def good() -> Tfidf:
    return Tfidf(embedding="none").fit(rows())


@pytest.fixture(scope="module")
def bad() -> Tfidf:
    """Its terms are in so many books that they tell nothing of the subject."""
    return Tfidf(embedding="none", min_df=30).fit(rows())


@pytest.fixture(scope="module")
def filled(database_url: str) -> str:
    """The address of a database with the books."""
    books = [book(number) for number in range(NUMBER)]
    for shelf in sorted({one.category for one in books}):
        given.load(database_url, shelf, [one for one in books if one.category == shelf])
    return database_url


@pytest.fixture
def connection(filled: str) -> Iterator[sa.Connection]:
    """In a transaction that is rolled back after the test."""
    with sa.create_engine(filled, poolclass=sa.NullPool).connect() as connection, connection.begin() as transaction:
        yield connection
        transaction.rollback()


def told(kind: Kind, book_id: int, for_book_id: int | None) -> Event:
    return Event(uuid.uuid4(), kind, "tfidf_model", "1", 1, book_id, for_book_id, 1, datetime.now(UTC))


def test_books_that_the_same_readers_like_belong_together_and_they_are_enough(judge: Readers) -> None:
    assert judge.is_enough and judge.readers == MIN_READERS and len(judge.queries) >= MIN_QUERIES
    pairs = [(book_id, other) for book_id, others in judge._related.items() for other in others]
    same = [one // ABOUT_IT == other // ABOUT_IT for one, other in pairs]
    assert np.mean(same) >= 0.9 and len(pairs) > 0.6 * NUMBER * (ABOUT_IT - 1)


def test_readers_without_taste_never_judge_however_many_they_are() -> None:
    random = np.random.default_rng(4)
    steps = [step for reader in range(20_000) for step in alone(reader, *random.choice(NUMBER, 5).tolist())]
    judge = Readers(rows(), steps)
    assert judge.readers == 20_000 and len(judge.queries) < 5 and not judge.is_enough


def test_too_few_readers_and_none_do_not_judge(many: list[Step]) -> None:
    assert not Readers(rows(), [step for step in many if step.reader < MIN_READERS - 1]).is_enough
    nobody = Readers(rows(), [])
    assert not nobody.is_enough and nobody.counts == {"readers": 0, "readers_queries": 0}
    assert Readers(rows(), alone(1, 10**6)).readers == 0  # a book that is not listed


CORNERS = {
    "the one liked book left, and a click had led to the other": [Step(1, 1, 5, False), Step(1, 99_999, 1, True)],
    "all events of books that left": [Step(1, 99_998, None, False), Step(1, 99_999, 99_998, True)],
    "one reader with one like": [Step(1, 1, None, True)],
    "one reader with many likes": alone(1, *range(30)),
    "clicks alone": [Step(reader, 1, 2, False) for reader in range(50)],
    "each reader likes another book": [step for reader in range(50) for step in alone(reader, reader)],
    "all readers like the same book": [step for reader in range(50) for step in alone(reader, 1)],
    "a like of a list for several books": [Step(1, 1, None, True), Step(2, 99_999, None, True)],
}


@pytest.mark.parametrize("steps", CORNERS.values(), ids=CORNERS.keys())
def test_the_first_events_of_readers_make_no_judge_and_stop_no_retrain(steps: list[Step]) -> None:
    judge = Readers(rows(), steps)
    assert not judge.is_enough and judge.rows == [] and len(judge.queries) == 0
    assert 0 <= judge.readers <= 50 and f"{judge.readers} of {MIN_READERS:,} readers" in judge.shortage


def test_the_better_model_wins_by_what_readers_like(judge: Readers, good: Tfidf, bad: Tfidf) -> None:
    judgement, worse = judge.judge(good), judge.judge(bad)
    better = decide(judgement, worse)
    assert better.is_promoted and f"judged by {MIN_READERS:,} readers" in better.reason
    assert not decide(worse, judgement).is_promoted
    assert not decide(judgement, judgement).is_promoted
    assert judgement.figures.keys() == {"readers_ndcg", "across_ndcg"} and judgement.figures["readers_ndcg"] > 0.8
    shelves = judge.by_shelf(judgement)
    assert shelves.keys() == {f"shelf-{at}" for at in range(SHELVES)}
    assert sum(count for _, count in shelves.values()) == len(judge.queries)
    total = sum(mean * count for mean, count in shelves.values())
    assert total / len(judge.queries) == pytest.approx(judgement.figures["readers_ndcg"])


def test_a_model_that_knows_the_shelf_alone_finds_nothing_across(judge: Readers) -> None:
    shelf_alone = [row._replace(title=row.category_name, description=None) for row in rows()]
    model = Tfidf(embedding="none").fit(shelf_alone)

    class OfShelves(Tfidf):
        def fold(self, rows: Sequence[BookText], **_: bool) -> Tfidf:
            return model.fold([row for row in shelf_alone if row.id in {row.id for row in rows}])

    assert judge.judge(OfShelves()).score < 0.05


def test_what_one_walk_through_the_lists_led_to_is_not_held_together() -> None:
    def judge(steps: Sequence[Step]) -> Readers:
        return Readers(rows(), [*steps, *background])

    background = [step for reader in range(100, 300) for step in alone(reader, reader % 300, (7 * reader) % 300)]
    apart = [step for reader in range(20) for step in alone(reader, 1, 2)]
    assert judge(apart)._related[1] == [2]
    in_its_list = [step._replace(for_book_id=1) for step in apart]
    assert 1 not in judge(in_its_list)._related
    from_one_list = [step._replace(for_book_id=3) for step in apart]
    assert 1 not in judge(from_one_list)._related
    from_lists_for_several = [step._replace(for_book_id=None) for step in apart]
    assert 1 not in judge(from_lists_for_several)._related
    by_way_of_a_click = [Step(reader, 9, 1, False) for reader in range(20)]
    from_there = [step._replace(for_book_id=9) if step.book_id == 2 else step for step in apart]
    assert set(judge(from_there)._related[1]) == {2, 9}
    assert 1 not in judge([*from_there, *by_way_of_a_click])._related


def test_the_book_that_a_walk_began_with_counts_as_liked() -> None:
    background = [step for reader in range(100, 300) for step in alone(reader, reader % 300, (7 * reader) % 300)]
    walks = [step for reader in range(20) for step in (Step(reader, 2, 1, True), Step(reader, 4, 3, True))]
    judge = Readers(rows(), [*walks, *background])
    assert {book: set(others) for book, others in judge._related.items() if book < 5} == {
        1: {3, 4},
        2: {3, 4},
        3: {1, 2},
        4: {1, 2},
    }


def test_one_hostile_account_makes_no_pair_and_turns_no_decision(
    many: list[Step], judge: Readers, good: Tfidf, bad: Tfidf
) -> None:
    listed = [near.book_id for near in bad.recommend(0, MOST_LIKES)]
    after = Readers(rows(), [*many, *alone(10**6, *listed)])
    assert after.readers == judge.readers + 1
    own = {(one, other) for one in listed for other in listed}
    made = {
        (one, other)
        for one, others in after._related.items()
        for other in others
        if other not in judge._related.get(one, ()) and (one, other) in own
    }
    liked = [{step.book_id for step in steps} for _, steps in groupby(many, lambda step: step.reader)]
    assert all(sum(set(pair) <= own for own in liked) >= 2 for pair in made)  # it only adds its voice to others'
    decision = decide(after.judge(bad), after.judge(good))
    assert not decision.is_promoted
    before = judge.judge(bad).score - judge.judge(good).score
    assert decision.figures["gain"] == pytest.approx(before, abs=0.01)


def test_of_an_account_the_newest_likes_and_clicks_are_read_once_each_and_of_a_disabled_one_none(
    connection: sa.Connection,
) -> None:
    ids = list(connection.scalars(sa.select(tables.books.c.id).order_by(tables.books.c.id)))
    one, other, gone = (accounts.add_user(connection, name, "-", ["feedback"]) for name in ("one", "two", "gone"))
    assert one and other and gone
    add_events(connection, one, [told("shown", ids[0], None), told("clicked", ids[1], ids[2])])
    add_events(connection, one, [told(kind, ids[3], ids[4]) for kind in ("liked", "swapped", "liked")])
    for at in range(NUMBER):  # told in turn: those told last are read
        add_events(connection, other, [told("liked", ids[at], None), told("clicked", ids[at], None)])
    connection.execute(sa.update(accounts.users).where(accounts.users.c.id == gone).values(disabled_at=sa.func.now()))
    add_events(connection, gone, [told("liked", ids[0], None)])
    steps = [Step(*row) for row in connection.execute(select_steps())]
    first, second = range(1, 3)  # numbered as their accounts are
    assert {step for step in steps if step.reader == first} == {
        Step(first, ids[1], ids[2], False),
        Step(first, ids[3], ids[4], True),
    }
    of_other = [step for step in steps if step.reader == second]
    assert sum(step.is_liking for step in of_other) == MOST_LIKES
    assert sum(not step.is_liking for step in of_other) == MOST_CLICKS
    assert {step.reader for step in steps} == {first, second}


def test_the_readers_that_a_shop_names_count_each_and_two_shops_share_none(connection: sa.Connection) -> None:
    ids = list(connection.scalars(sa.select(tables.books.c.id).order_by(tables.books.c.id)))
    shops = [accounts.add_user(connection, name, "-", ["feedback", "readers"]) for name in ("shop-1", "shop-2")]
    for shop in shops:
        assert shop
        for reader in ("ann", "bob", None):
            add_events(connection, shop, [replace(told("liked", at, None), reader=reader) for at in ids])
            add_events(connection, shop, [replace(told("clicked", ids[0], ids[1]), reader=reader)] * 2)
    steps = [Step(*row) for row in connection.execute(select_steps())]
    likes = Counter(step.reader for step in steps if step.is_liking)
    assert likes == dict.fromkeys(range(1, 7), MOST_LIKES)
    assert Counter(step.reader for step in steps if not step.is_liking) == dict.fromkeys(range(1, 7), 1)
    kept = connection.scalars(sa.select(feedback.c.reader).distinct()).all()
    assert len(kept) == 5 and not any(b"ann" in digest or b"bob" in digest for digest in kept if digest is not None)


def test_a_shop_that_tells_for_enough_readers_by_one_account_has_judges(
    connection: sa.Connection, many: list[Step]
) -> None:
    ids = list(connection.scalars(sa.select(tables.books.c.id).order_by(tables.books.c.upc)))
    id_of = dict(zip(sorted(range(NUMBER), key=lambda number: f"upc-{number}"), ids, strict=True))
    shop = accounts.add_user(connection, "shop", "-", ["feedback", "readers"])
    assert shop
    for reader, steps in groupby(many, lambda step: step.reader):
        events = [
            replace(told("liked", id_of[step.book_id], id_of[step.book_id]), reader=f"r{reader}") for step in steps
        ]
        add_events(connection, shop, events)
    listed = [row._replace(id=id_of[row.id]) for row in rows()]
    judge = Readers(listed, [Step(*row) for row in connection.execute(select_steps())])
    assert judge.is_enough and judge.readers == MIN_READERS


@pytest.fixture
def definitions(tmp_path: Path, filled: str, monkeypatch: pytest.MonkeyPatch) -> dg.Definitions:
    """The platform over `filled`, with a registry of its own in `tmp_path`."""
    monkeypatch.setenv("BOOKCLUB_HOME", str(tmp_path))
    monkeypatch.setenv("BOOKCLUB_DATABASE_URL", filled)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_in(tmp_path))
    monkeypatch.chdir(tmp_path)
    return build_definitions(load_settings(shop_url="http://127.0.0.1:1"))


def test_a_model_that_a_person_took_back_does_not_come_again_with_the_next_retrain(
    definitions: dg.Definitions, tmp_path: Path
) -> None:
    assert [retrained(definitions, min_df=df)["is_champion"].value for df in (30, 2)] == [True, True]
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    registry.rollback("tfidf_model", "complaints", by="ada")
    again = retrained(definitions)
    assert not again["is_champion"].value
    assert "It is better" in str(again["decision"].value) and "complaints" in str(again["decision"].value)
    assert registry.champion("tfidf_model").version == "1"


def test_as_soon_as_there_are_enough_readers_they_judge_the_retrain_and_it_is_said_everywhere(
    definitions: dg.Definitions, tmp_path: Path, filled: str, many: list[Step]
) -> None:
    first = retrained(definitions, min_df=30)
    assert first["judged_by"].value == f"three proxies (0 of 1,000 readers, 0 of {MIN_QUERIES} books they agree on)"
    tell(filled, many)
    second = retrained(definitions)
    assert second["is_champion"].value and f"judged by {MIN_READERS:,} readers" in str(second["decision"].value)
    assert str(second["judged_by"].value).startswith("1,000 readers (1,000 of 1,000 readers, ")
    assert second["readers"].value == MIN_READERS and 0 < float(str(second["readers_ndcg"].value)) <= 1
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    champion, before = registry.versions("tfidf_model")
    assert (before.tags["judged_by"], champion.tags["judged_by"]) == ("proxies", "readers")
    figures = registry.figures(champion)
    assert figures["readers"] == MIN_READERS and figures["readers_queries"] == figures["queries"] >= MIN_QUERIES
    page = max(tmp_path.rglob("pages/model.html"), key=lambda path: path.stat().st_mtime).read_text(encoding="utf-8")
    assert "readers_ndcg" in page and "proxy_" not in page and str(second["decision"].value) in page


def retrained(definitions: dg.Definitions, **config: float) -> dict[str, dg.MetadataValue]:  # type: ignore[type-arg]
    result = dg.materialize(
        list(definitions.assets or []),
        resources=dict(definitions.resources or {}),
        selection=dg.AssetSelection.assets("tfidf_model"),
        run_config={"ops": {"tfidf_model": {"config": config}}},
    )
    (found,) = result.asset_materializations_for_node("tfidf_model")
    return dict(found.metadata)


def tell(database_url: str, steps: Sequence[Step]) -> None:
    """As POST /feedback keeps it: the made-up readers as accounts, the books by their ids."""
    with sa.create_engine(database_url, poolclass=sa.NullPool).begin() as connection:
        id_of = {
            int(upc.removeprefix("upc-")): book_id
            for book_id, upc in connection.execute(sa.select(tables.books.c.id, tables.books.c.upc))
        }
        names = [f"reader-{number}" for number in range(1 + max(step.reader for step in steps))]
        account = {"password_hash": "-", "scopes": ["feedback"]}
        made = connection.execute(
            sa.insert(accounts.users).returning(accounts.users.c.username, accounts.users.c.id),
            [account | {"username": name} for name in names],
        )
        user_of = dict(made.tuples().all())
        events = [
            asdict(told("liked", id_of[step.book_id], id_of[step.book_id]))
            | {"user_id": user_of[f"reader-{step.reader}"]}
            for step in steps
        ]
        connection.execute(sa.insert(feedback), events)
