"""Which versions the API takes up: one that cannot answer, or not with the books of today, replaces none."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from bookclub_platform.core.browse import IN_STOCK
from bookclub_platform.core.errors import ArtifactInvalid, DatabaseUnavailable, NoChampion
from bookclub_platform.core.stock import Stock
from bookclub_platform.core.tables import select_training_rows
from bookclub_platform.models import BookText, ModelVersion, Reason, Recommendation, Registry, Tfidf
from bookclub_platform_tests import api_fixtures as given
from bookclub_platform_tests.mlflow_store import store_in
from bookclub_platform_tests.test_tfidf_artifact import put, rewrite_array, with_parameters
from serving.books import stock_files
from serving.recommender import rehearsal
from serving.recommender.champion import ChampionKeeper
from serving.recommender.lineup import Lineup, Lineups


@pytest.fixture(scope="module")
def store(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelVersion, ModelVersion]:
    """A registry with two versions of a model of the books in the database."""
    for category, books in given.catalogue().items():
        given.load(database_url, category, books)
    folder = tmp_path_factory.mktemp("store")
    registry = Registry(store_in(folder))
    model = Tfidf().fit([BookText(*row) for row in given.read(database_url, select_training_rows())])
    made = [registry.publish(model, {}, {}, {}, (folder / "artifacts").as_uri()) for _ in range(2)]
    return folder, made[0], made[1]


class SomeBooks(Lineups):
    """Books that stop one model from being used, or that are away."""

    fault: Exception | None = None
    looks = 0

    def read_ahead(self) -> None:
        if self.fault is not None:
            raise self.fault
        super().read_ahead()

    def of(self, model: Tfidf, before: Lineup | None = None) -> Lineup:
        self.looks += 1
        if self.fault is not None:
            raise self.fault
        return super().of(model, before)


@pytest.fixture
def books(database_url: str) -> Iterator[SomeBooks]:
    books = SomeBooks(database_url)
    yield books
    books.close()


@pytest.fixture
def registry(store: tuple[Path, ModelVersion, ModelVersion]) -> Registry:
    folder, first, _ = store
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    registry.promote(first)
    return registry


@pytest.fixture
def keeper(registry: Registry, books: SomeBooks, tmp_path: Path) -> ChampionKeeper:
    """With the first version in use."""
    keeper = ChampionKeeper(registry, Tfidf.name, tmp_path, 60, books)
    keeper.look()
    assert keeper.fault is None and keeper.books_fault is None
    return keeper


@pytest.mark.parametrize(
    "fault", [MemoryError("out of memory"), TypeError("no number"), OverflowError("too large"), KeyError("x")], ids=repr
)
def test_a_new_version_that_cannot_take_in_todays_books_is_refused_and_the_old_one_serves_on(
    fault: Exception,
    keeper: ChampionKeeper,
    registry: Registry,
    books: SomeBooks,
    store: tuple[Path, ModelVersion, ModelVersion],
) -> None:
    _, first, second = store
    before = keeper.champion()
    registry.promote(second)
    books.fault = fault
    keeper.look()
    assert keeper.champion() is before and keeper.champion().lineup.stock is not None
    assert (
        keeper.fault is not None and f"version {second.version} cannot be used, version {first.version}" in keeper.fault
    )
    assert f"the books of today ({type(fault).__name__}" in keeper.fault and keeper.swaps == 1


def test_a_new_version_is_taken_up_while_the_database_is_away_and_grows_once_it_is_back(
    keeper: ChampionKeeper, registry: Registry, books: SomeBooks, store: tuple[Path, ModelVersion, ModelVersion]
) -> None:
    _, _, second = store
    registry.promote(second)
    books.fault = DatabaseUnavailable("The books cannot be read.")
    keeper.look()
    assert keeper.champion().version.version == second.version and keeper.fault is None
    assert keeper.champion().lineup.stock is None and keeper.books_fault == "The books cannot be read."
    books.fault = None
    keeper.look_at_books()
    assert keeper.champion().lineup.stock is not None and keeper.books_fault is None


HOSTILE: dict[str, Callable[[Path], object]] = {
    "words without end": with_parameters(title_weight=10**9),
    "a weight that is text": with_parameters(title_weight="x"),
    "a category beyond numbers": with_parameters(category_weight=1e308),
    "a mean far away": lambda folder: rewrite_array(folder, "embedding_mean.npy", put(0, 3e38)),
}


@pytest.mark.parametrize("harm", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_version_with_other_parameters_than_a_model_can_have_is_refused(
    harm: Callable[[Path], object],
    keeper: ChampionKeeper,
    registry: Registry,
    store: tuple[Path, ModelVersion, ModelVersion],
) -> None:
    folder, first, second = store
    files = next(path.parent for path in folder.rglob("idf.npy") if second.run_id in str(path))
    shutil.copytree(files, folder / "kept")
    harm(files)
    try:
        registry.promote(second)
        keeper.look()
    finally:
        shutil.rmtree(files)
        (folder / "kept").rename(files)
    assert keeper.champion().version.version == first.version and keeper.champion().lineup.stock is not None
    assert keeper.fault is not None and f"version {first.version} stays in use" in keeper.fault


def test_a_model_that_answers_with_no_list_is_not_sound(
    store: tuple[Path, ModelVersion, ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = next(path.parent for path in store[0].rglob("idf.npy"))
    assert isinstance(rehearsal.rehearsed(files), Tfidf)
    for of_books in ([1.0, np.nan], [2.0, 1.0], [0.4, 0.5], [np.inf]):
        monkeypatch.setattr(rehearsal, "_first_answers", lambda _, scores=of_books: [_listed(scores)])
        with pytest.raises(ArtifactInvalid, match="highest first"):
            rehearsal.rehearsed(files)
    monkeypatch.setattr(rehearsal, "_first_answers", lambda _: [_listed([0.5, 0.4], share=np.nan)])
    with pytest.raises(ArtifactInvalid, match="highest first"):
        rehearsal.rehearsed(files)


class SlowRegistry(Registry):
    """One whose files come once the books are read."""

    def __init__(self, address: str, may_come: threading.Event) -> None:
        super().__init__(address)
        self._may_come = may_come

    def download(self, version: ModelVersion, folder: Path) -> Path:
        assert self._may_come.wait(30), "the books are not read before the model has come"
        return super().download(version, folder)


def test_the_books_of_a_large_catalogue_are_read_while_the_first_model_comes(
    store: tuple[Path, ModelVersion, ModelVersion],
    registry: Registry,
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    are_read = threading.Event()
    read, seen = stock_files.read_stock, []

    def read_and_tell(connection: sa.Connection) -> Stock:
        seen.append(read(connection))
        return seen[-1]

    class TellingBooks(Lineups):
        def read_ahead(self) -> None:
            super().read_ahead()
            are_read.set()

    monkeypatch.setattr(stock_files, "LARGE_FROM", 1)
    monkeypatch.setattr(stock_files, "read_stock", read_and_tell)
    lineups = TellingBooks(database_url, folder=tmp_path / "stock")
    slow = SlowRegistry(f"sqlite:///{store[0]}/mlflow.db", are_read)
    asyncio.run(_until_in_use(ChampionKeeper(slow, Tfidf.name, tmp_path / "models", 60, lineups)))
    lineups.close()
    assert len(seen) == 1, "by read_ahead alone"


@pytest.mark.parametrize("fault", [DatabaseUnavailable("The books cannot be read."), ValueError("no number")], ids=repr)
def test_a_start_survives_that_the_books_cannot_be_read_ahead(
    fault: Exception, registry: Registry, books: SomeBooks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    books.fault = fault
    keeper = ChampionKeeper(registry, Tfidf.name, tmp_path, 0.1, books)

    async def heal() -> None:
        while str(fault) not in caplog.text:
            await asyncio.sleep(0.01)
        books.fault = None

    async def both() -> None:
        await asyncio.gather(_until_in_use(keeper), heal())

    asyncio.run(both())


async def _until_in_use(keeper: ChampionKeeper) -> None:
    """Run it until it answers with a model and books."""
    running = asyncio.create_task(keeper.run())
    async with asyncio.timeout(30):
        while (champion := keeper.current) is None or champion.lineup.stock is None:
            assert not running.done()
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def _listed(scores: list[float], share: float = 0.1) -> list[Recommendation]:
    return [Recommendation(at, score, [Reason("term", "sea", share)]) for at, score in enumerate(scores)]


def test_what_was_told_of_the_version_before_is_let_go_of_bit_by_bit(
    store: tuple[Path, ModelVersion, ModelVersion], registry: Registry, database_url: str, tmp_path: Path
) -> None:
    lineups = Lineups(database_url, near_bytes=2**20)
    keeper = ChampionKeeper(registry, Tfidf.name, tmp_path, 60, lineups)
    keeper.look()
    before = keeper.champion()
    assert before.lineup.near is not None
    for book_id in before.model.book_ids.tolist():
        before.lineup.near.of(book_id, 3, before.lineup.mask(IN_STOCK))
    assert before.lineup.near._pairs.size_bytes > 0
    registry.promote(store[2])
    keeper.look()
    lineups.close()
    # Who still answers with it holds it: nothing but the swap has emptied it.
    assert keeper.champion().version == store[2] and before.lineup.near._pairs.size_bytes == 0


def test_a_fault_of_the_books_that_lasts_is_logged_once_and_looked_at_more_and_more_rarely(
    registry: Registry,
    books: SomeBooks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keeper = ChampionKeeper(registry, Tfidf.name, tmp_path, 0.5, books)
    keeper.look()
    books.fault, books.looks = ValueError("a row that no schema has"), 0
    monkeypatch.setattr(books, "is_behind", lambda _: True)

    async def run_shortly() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await keeper.run()

    asyncio.run(run_shortly())
    assert 1 <= books.looks <= 6, "after 0.5 s, after another 1 s and so on"
    assert caplog.text.count("Looking at the books failed.") == 1
    assert keeper.lasting_books_fault() == "ValueError: a row that no schema has"


def test_a_fault_of_the_registry_that_lasts_is_logged_once(
    keeper: ChampionKeeper, registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> ModelVersion:
        raise RuntimeError("a registry that is not one")

    monkeypatch.setattr(registry, "champion", broken)
    for _ in range(3):
        keeper.look()
    assert caplog.text.count("Looking for the champion failed.") == 1


def test_a_look_that_does_not_end_becomes_a_fault(keeper: ChampionKeeper) -> None:
    keeper.look_at_books()
    assert keeper.lasting_fault() is None and keeper.lasting_books_fault() is None
    keeper.asked_at -= 700  # ten times the time between two looks, and more
    assert "The registry was asked 70" in str(keeper.lasting_fault()) and keeper.lasting_books_fault() is None
    keeper.books_asked_at -= 700
    assert "The database was asked 70" in str(keeper.lasting_books_fault())


def test_a_copy_that_is_let_go_of_stays_whole_for_who_replaces_its_books(
    keeper: ChampionKeeper, registry: Registry, tmp_path: Path, books: SomeBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    again, asked = ChampionKeeper(registry, Tfidf.name, tmp_path, 60, books), threading.Event()
    again.recall()

    def none(name: str) -> ModelVersion:
        asked.set()
        raise NoChampion("a different registry")

    monkeypatch.setattr(registry, "champion", none)
    looking = threading.Thread(target=again.look)
    with again._swap:  # as while `look_at_books` puts other books beside the model
        looking.start()
        assert asked.wait(10)
        looking.join(0.5)
        assert again.current is not None
    looking.join(10)
    assert again.current is None


def test_a_version_with_a_figure_that_is_no_number_is_recalled(
    registry: Registry,
    books: SomeBooks,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures = {"coverage": 1.0, "ndcg": float("nan"), "worst": float("-inf")}
    monkeypatch.setattr(registry, "figures", lambda _: figures)
    ChampionKeeper(registry, Tfidf.name, tmp_path, 60, books).look()
    again = ChampionKeeper(registry, Tfidf.name, tmp_path, 60, books)
    again.recall()
    assert again.champion().figures == {"coverage": 1.0}, caplog.text
