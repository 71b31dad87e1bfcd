"""models/tfidf.py on a small shelf written for it, its files damaged in every way, and the yardstick of ../shared."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bookclub_platform.core.book import RawBook
from bookclub_platform.core.errors import ModelError
from bookclub_platform.models import MODELS, BookText, Tfidf, load_model
from bookclub_platform.models._index import nearest
from bookclub_platform.models._text import term_of, words, work_key

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

SHELF = [
    ("The Harbour Lamp", "A lighthouse keeper finds a wreck below the cliffs and a map of the reefs.", "adventure"),
    ("Salt on the Rigging", "A young sailor follows a map past the reefs to a wreck full of silver.", "adventure"),
    ("Nine Fathoms Down", "Divers search a wreck in cold water while a storm closes on the lighthouse.", "adventure"),
    ("The Lantern Coast", "Smugglers, a lighthouse and a keeper's daughter on a stormy coast.", "adventure"),
    ("A Ship for Morning", "The sailor Ines builds a ship with her brothers and sails past the reefs.", "adventure"),
    ("Bread at Dawn", "Sourdough recipes for a small kitchen: flour, water, salt and a hot oven.", "cooking"),
    ("The Slow Oven", "Stews and roasts that need an oven, patience and a heavy pot.", "cooking"),
    ("Flour and Time", "How a baker thinks about sourdough, flour and a patient oven.", "cooking"),
    ("Soup for Eleven", "Recipes for soup in a big pot, from a kitchen that feeds eleven.", "cooking"),
    ("A Kitchen by the Sea", "Fish recipes from a small kitchen near a lighthouse.", "cooking"),
    ("The Clockmaker's Proof", "A detective asks why the clockmaker died in a locked workshop.", "mystery"),
    ("Murder at Low Tide", "Detective Osei reads a murder in the marks that low tide leaves.", "mystery"),
    ("The Second Locked Room", "A murder, a locked room, and a detective who doubts the butler.", "mystery"),
    ("A Letter to the Coroner", "An old murder wakes when a letter reaches the detective.", "mystery"),
    ("What the Gardener Saw", "The gardener saw the murder and will not tell the detective.", "mystery"),
    ("Orbits", "Poems about planets, orbits and the silence between stars.", "poetry"),
    ("Small Moons", "Poems of moons, tides and a telescope in a back garden.", "poetry"),
    ("Telescope Weather", "Poems for people who wait for stars with a telescope.", "poetry"),
    ("The Planet Gardener", "A botanist plants a garden on a silent planet under two moons.", "science-fiction"),
    ("Engines of Dust", "A crew wakes the engines of a dead ship in orbit round a planet.", "science-fiction"),
    ("Two Moons West", "Settlers cross a dusty planet toward two moons and a dead engine.", "science-fiction"),
    ("The Star Atlas", "A child inherits an atlas of stars.", "default"),
    ("The Star  atlas!", "An atlas of stars that a child inherits, with new plates.", "default"),
    ("Unsorted", "A detective and a murder in a box of unsorted papers.", "add-a-comment"),
    ("Quiet", None, "poetry"),
]


def shelf() -> list[BookText]:
    return [
        BookText(100 + at, title, description, category, category.replace("-", " ").title())
        for at, (title, description, category) in enumerate(SHELF)
    ]


def place(title: str) -> int:
    return 100 + [row[0] for row in SHELF].index(title)


@pytest.fixture(scope="module")
def model() -> Tfidf:
    return Tfidf().fit(shelf())


@pytest.fixture(scope="module")
def saved(model: Tfidf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save(folder)
    return folder


def test_glued_sentences_come_apart_and_names_stay_whole() -> None:
    assert words("in the treetopDon't you know McDougall’s rock'n'roll") == [
        *["in", "the", "treetop", "Don't", "you", "know", "McDougall", "s", "rock'n'roll"]
    ]
    assert words("won\u00adder\ufeff\u00a0Brontë, 42nd") == ["wonder", "Brontë", "42nd"]


def test_words_that_say_nothing_have_no_term_and_inflections_share_one() -> None:
    term = term_of()
    assert [term(word) for word in ["The", "don't", "she'll", "s", "It"]] == [None] * 5
    assert term("Mysteries") == term("mystery")
    assert term("fire") == "fire"


def test_a_work_is_known_by_the_words_of_its_title() -> None:
    assert work_key("The Star-Touched  QUEEN!") == work_key("the star touched queen")
    assert work_key("Can You Keep a Secret? (Fear Street #4)") != work_key("Can You Keep a Secret?")
    assert work_key("???") != work_key("!")


def test_the_nearest_books_share_the_theme(model: Tfidf) -> None:
    nearest = [near.book_id for near in model.recommend(place("Murder at Low Tide"), 4)]
    assert set(nearest) <= {place(title) for title, _, category in SHELF if category in {"mystery", "add-a-comment"}}


def test_scores_fall_and_lie_between_0_and_1_and_shares_add_up_to_them(model: Tfidf) -> None:
    for book_id in model.book_ids.tolist():
        near = model.recommend(book_id, 100)
        scores = [item.score for item in near]
        assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)
        assert book_id not in [item.book_id for item in near]
        for item in near:
            named = [reason.share for reason in item.why if reason.kind != "terms"]
            assert 1 <= len(named) <= 6 and named == sorted(named, reverse=True)
            assert [reason.kind for reason in item.why[len(named) :]] in ([], ["terms"])
            assert sum(reason.share for reason in item.why) == pytest.approx(item.score, abs=1e-6)
            assert all(reason.share >= 0 for reason in item.why)


def test_without_an_embedding_a_score_is_the_cosine_of_the_two_vectors() -> None:
    model = Tfidf(embedding="none").fit(shelf())
    index = model.index_.by_book
    dense = np.zeros((len(model.book_ids), len(model.vocabulary_)))
    for row in range(len(dense)):
        own = slice(index.indptr[row], index.indptr[row + 1])
        dense[row, index.indices[own]] = index.data[own]
    assert np.linalg.norm(dense, axis=1) == pytest.approx(np.ones(len(dense)), abs=1e-6)
    cosines = dict(zip(model.book_ids.tolist(), dense @ dense[3], strict=True))
    near = model.recommend(103, 100)
    assert [item.score for item in near] == pytest.approx([cosines[item.book_id] for item in near], abs=1e-6)
    assert {item.book_id for item in near} == {book for book, cosine in cosines.items() if cosine > 0 and book != 103}


def test_reasons_are_words_as_readers_write_them(model: Tfidf) -> None:
    near = {item.book_id: item for item in model.recommend(place("The Second Locked Room"), 10)}
    reasons = {(reason.kind, reason.value) for reason in near[place("Murder at Low Tide")].why}
    assert {("term", "murder"), ("term", "detective"), ("category", "Mystery")} <= reasons


def test_a_placeholder_category_is_never_a_reason(model: Tfidf) -> None:
    assert not {"Default", "Add A Comment"} & set(model.vocabulary_)
    near = {item.book_id: item for item in model.recommend(place("Unsorted"), 100)}
    assert place("The Star Atlas") not in near, "they share the words of the placeholder alone"
    sorted_too = Tfidf(unknown_categories=()).fit(shelf())
    assert {"Default", "Add A Comment"} <= set(sorted_too.vocabulary_)


def test_the_same_work_stands_once_in_a_list_and_not_in_its_own(model: Tfidf) -> None:
    both = {place("The Star Atlas"), place("The Star  atlas!")}
    for book_id in model.book_ids.tolist():
        found = both & {near.book_id for near in model.recommend(book_id, 100)}
        assert len(found) <= (0 if book_id in both else 1)
    assert both & {near.book_id for near in model.recommend(place("Orbits"), 100)}


def test_many_copies_of_one_work_do_not_shorten_a_list() -> None:
    copies = [BookText(1000 + at, "Murder, a Murder", "A murder and a detective.", "x", "X") for at in range(50)]
    near = Tfidf(embedding="none").fit(shelf() + copies).recommend(place("Murder at Low Tide"), 5)
    assert len(near) == 5 and sum(item.book_id >= 1000 for item in near) == 1


def test_limits_are_kept_and_a_longer_list_begins_with_the_shorter(model: Tfidf) -> None:
    whole = model.recommend(105, 100)
    assert [model.recommend(105, limit) for limit in range(4)] == [whole[:limit] for limit in range(4)]


def test_of_equal_scores_the_lowest_id_comes_first() -> None:
    scores = np.tile([0.0, 0.5, 0.25], 400)
    halves, quarters = np.arange(1, 1200, 3), np.arange(2, 1200, 3)
    works = np.arange(1200, dtype=np.int32)
    assert nearest(scores, works, 7).tolist() == halves[:7].tolist()
    assert nearest(scores, works, 500).tolist() == [*halves.tolist(), *quarters[:100].tolist()]


@pytest.mark.parametrize("unknown", [99, 126, -1, 2**70, -(2**70)])
def test_an_unknown_book_is_a_key_error(model: Tfidf, unknown: int) -> None:
    with pytest.raises(KeyError):
        model.recommend(unknown, 10)


def test_four_processes_share_one_copy_of_the_arrays(tmp_path: Path) -> None:
    if not Path("/proc/self/smaps").exists():
        pytest.skip("only Linux tells how memory is shared")
    rows = [
        BookText(at, f"Book {at}", " ".join(f"w{at * step % 997}" for step in range(60)), "x", "X")
        for at in range(3000)
    ]
    Tfidf().fit(rows).save(tmp_path)
    program = f"""
import re, sys
from pathlib import Path
from bookclub_platform.models import load_model
model = load_model({str(tmp_path)!r})
near = [model.recommend(book, 10) for book in model.book_ids.tolist()[::10]]
print("ready", flush=True)
sys.stdin.readline()
maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
arrays = "".join(found for found in maps if {str(tmp_path)!r} in found)
print(*(sum(map(int, re.findall(name + r": +([0-9]+) kB", arrays))) for name in ("Rss", "Pss")))
"""
    command = [sys.executable, "-c", program]
    workers = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)
    ]
    try:
        for worker in workers:
            assert worker.stdout and worker.stdout.readline() == "ready\n"
        size_kb = sum(path.stat().st_size for path in tmp_path.glob("*.npy")) / 1024
        for worker in workers:  # one at a time, while all four hold the arrays
            assert worker.stdin and worker.stdout
            worker.stdin.write("\n")
            worker.stdin.flush()
            rss_kb, pss_kb = map(int, worker.stdout.readline().split())
            assert rss_kb > 0.8 * size_kb, "all of the arrays were read"
            assert pss_kb < 0.6 * rss_kb
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()


def test_the_order_of_the_rows_does_not_matter(model: Tfidf) -> None:
    other = Tfidf().fit(shelf()[::-1])
    assert all(other.recommend(book, 10) == model.recommend(book, 10) for book in model.book_ids.tolist())


@pytest.mark.parametrize("rows", [[], shelf()[:1], [BookText(1, "?!", None, "x", "-"), BookText(2, "", "", "x", "-")]])
def test_books_that_share_nothing_cannot_be_fitted(rows: list[BookText]) -> None:
    with pytest.raises(ModelError, match=f"nothing to learn from {len(rows)} books"):
        Tfidf().fit(rows)


def test_a_shelf_of_placeholders_alone_can_be_fitted() -> None:
    rows = [row._replace(category="default", category_name="Default") for row in shelf()]
    assert Tfidf().fit(rows).counts["categories"] == 0


def test_a_saved_model_gives_the_same_lists(model: Tfidf, saved: Path) -> None:
    loaded = load_model(saved)
    assert isinstance(loaded, Tfidf) and MODELS[model.name] is Tfidf
    assert loaded.parameters == model.parameters
    assert loaded.counts == model.counts and loaded.vocabulary_ == model.vocabulary_
    for book in model.book_ids.tolist():
        assert loaded.recommend(book, 100) == model.recommend(book, 100)


def test_loaded_arrays_are_mapped_and_cannot_be_written(saved: Path) -> None:
    data = Tfidf.load(saved).index_.by_book.data
    assert isinstance(data.base, np.memmap) and not data.flags.writeable


def test_threads_may_share_a_model(model: Tfidf) -> None:
    books = model.book_ids.tolist() * 20
    alone = [model.recommend(book, 10) for book in books]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda book: model.recommend(book, 10), books)) == alone


def test_loading_and_asking_needs_neither_the_trainer_nor_the_registry(saved: Path) -> None:
    program = f"""
import sys
from bookclub_platform.models import Registry, load_model
assert load_model({str(saved)!r}).recommend(100, 3)
print([name for name in {TRAINERS!r} if name in sys.modules])
"""
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


TRAINERS = ("sklearn", "pandas", "scipy", "mlflow", "dagster", "snowballstemmer", "onnxruntime", "tokenizers")


def real_books() -> list[tuple[str, BookText]]:
    """(UPC, text) of each book of the real shop, as cleaning leaves it."""
    from bookclub_platform.cleaning import clean

    text = (SHARED / "shop" / "books.jsonl").read_text(encoding="utf-8")
    found = [json.loads(line) for line in text.split("\n") if line]
    raw = [
        RawBook(
            source="books_toscrape",
            url=book["url_path"],
            category=book["category_slug"],
            category_name=book["category"],
            upc=book["upc"],
            title=book["title"],
            price=f"£{book['price_gbp']:.2f}",
            rating=None,
            availability="In stock",
            description=book["description"],
            num_reviews=None,
            image_url=None,
            seen_at=datetime.now(UTC),
        )
        for book in found
    ]
    ids = {book["upc"]: book["id"] for book in found}
    return [
        (book.source_id, BookText(ids[book.source_id], book.title, book.description, book.category, book.category_name))
        for book in clean(raw).books
    ]


def test_the_yardstick_of_real_readers_is_reached() -> None:
    if not SHARED.exists():
        pytest.skip("needs ../shared")
    books = real_books()
    upc = {row.id: upc for upc, row in books}
    model = Tfidf().fit([row for _, row in books])
    lists = {upc[book_id]: [upc[near.book_id] for near in model.recommend(book_id, 100)] for book_id in upc}
    figures = yardstick().score(lists, json.loads((SHARED / "yardstick" / "dev.json").read_text(encoding="utf-8")))
    assert figures["ndcg@10"] >= 0.31 and figures["ndcg@10_other_authors"] >= 0.18
    assert figures["without_a_list"] == 0
    # Health of the lists as readers see them: ten books.
    shown = Counter(other for listed in lists.values() for other in listed[:10])
    assert len(shown) >= 0.98 * len(lists) and max(shown.values()) <= 0.05 * len(lists)
    work = {upc: work_key(row.title) for upc, row in books}
    for upc_of_book, listed in lists.items():
        works = [work[other] for other in [upc_of_book, *listed]]
        assert len(listed) >= 10 and len(set(works)) == len(works)


def yardstick() -> Any:
    spec = importlib.util.spec_from_file_location("yardstick", SHARED / "yardstick" / "score.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_books_that_share_no_word_are_near_by_the_words_that_stand_beside_theirs() -> None:
    texts = ["wolf forest", "forest moon", "moon howl", "oven bread", "bread flour", "flour dough"] * 3
    rows = [BookText(at, f"Book{at}", text, "default", "Default") for at, text in enumerate(texts)]
    near = {item.book_id: item.why for item in Tfidf(min_df=2).fit(rows).recommend(0, 20)}
    assert {near_id % 6 for near_id in near} <= {0, 1, 2}  # "moon howl" shares no word with "wolf forest"
    assert any(near_id % 6 == 2 for near_id in near)


def test_a_folded_book_has_the_embedding_that_it_would_have_had() -> None:
    model = Tfidf().fit(shelf())
    folded = model.fold(shelf())
    assert model.embedding_ is not None and folded.embedding_ is not None
    assert np.allclose(model.embedding_, folded.embedding_, atol=1e-5)


def test_of_more_books_than_said_none_has_an_embedding(tmp_path: Path) -> None:
    model = Tfidf(embedding_up_to=len(shelf()) - 1).fit(shelf())
    model.save(tmp_path)
    assert Tfidf.load(tmp_path).embedding_ is None
    assert Tfidf(embedding_up_to=len(shelf())).fit(shelf()).embedding_ is not None


@pytest.mark.parametrize(
    "wrong",
    [
        {"title_weight": 10**9},
        {"title_weight": "x"},
        {"title_weight": 2.5},
        {"title_weight": True},
        {"category_name_weight": -1},
        {"category_weight": 1e308},
        {"category_weight": float("nan")},
        {"category_weight": float("inf")},
        {"min_df": 0},
        {"min_df": None},
        {"unknown_categories": "default"},
        {"unknown_categories": 5},
        {"unknown_categories": [7]},
        {"embedding": "other"},
        {"embedding": 7},
        {"embedding_weight": 1.5},
        {"embedding_weight": -0.1},
        {"embedding_up_to": -1},
        {"embedding_up_to": 10**400},
        {"no_such": 1},
    ],
    ids=str,
)
def test_no_model_is_made_with_parameters_of_another_type_or_out_of_bounds(wrong: dict[str, object]) -> None:
    (name,) = wrong
    with pytest.raises(ModelError, match=rf"\({name}[.:]"):
        Tfidf(**wrong)  # type: ignore[arg-type]
