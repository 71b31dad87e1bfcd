"""The whole walk by `bookclub build`: shop -> kept pages -> rows -> table -> model, then an answer from the API."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
import sqlalchemy as sa

from bookclub_platform import sandbox
from bookclub_platform.cleaning import clean
from bookclub_platform.core import tables
from bookclub_platform.core.database import database_urls
from bookclub_platform.local.home import dagster_home
from bookclub_platform.local.postgres import leased
from bookclub_platform.sources import latest
from bookclub_platform_tests.conftest import SHARED
from bookclub_platform_tests.local_http import free_port
from bookclub_platform_tests.waiting import is_up, wait_for

BOOKCLUB = [sys.executable, "-m", "bookclub_platform.cli"]
needs_real_shop = pytest.mark.skipif(not (SHARED / "shop").exists(), reason="the real shop's pages are not here")


def environment(home: Path, shop_url: str, **more: str) -> dict[str, str]:
    return os.environ | {"BOOKCLUB_HOME": str(home), "BOOKCLUB_SHOP_URL": shop_url} | more


def build(home: Path, shop_url: str) -> str:
    done = subprocess.run(
        [*BOOKCLUB, "build"], env=environment(home, shop_url), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def api(home: Path, shop_url: str) -> Iterator[str]:
    """The address of `bookclub serve` over what was built in `home`."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    served = environment(home, shop_url, BOOKCLUB_API_PORT=str(port))
    with subprocess.Popen([*BOOKCLUB, "serve"], env=served, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for(lambda: is_up(f"{url}/ready"), 30, f"{url} is not ready", pause_s=0.1)
            yield url
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def connected(home: Path) -> Iterator[sa.Connection]:
    with leased(home) as url:
        engine = sa.create_engine(database_urls(url).books)
        with engine.connect() as connection:
            yield connection
        engine.dispose()


@pytest.fixture(scope="module")
def sandbox_url() -> Iterator[str]:
    with sandbox.running(books=120, seed=5) as url:
        yield url


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sandbox_url: str) -> Path:
    """The home of a platform that was built once from a small sandbox shop."""
    home = tmp_path_factory.mktemp("built")
    build(home, sandbox_url)
    return home


def answers(home: Path, shop_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A page of books, and the recommendations for the first of them."""
    with api(home, shop_url) as url:
        page = requests.get(f"{url}/books", params={"limit": 100}, timeout=10).json()
        question = f"{url}/books/{page['items'][0]['id']}/recommendations"
        return page, requests.get(question, timeout=10).json()


@pytest.fixture(scope="module")
def first_answers(built: Path, sandbox_url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return answers(built, sandbox_url)


def test_one_command_leads_from_the_shop_to_a_recommendation(
    first_answers: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    page, answer = first_answers
    assert page["total"] == 120
    assert page["next"]
    assert answer["model"]["name"] == "tfidf_model"
    assert len(answer["items"]) == 10
    assert all(item["book"]["id"] != answer["book_id"] and item["why"] for item in answer["items"])


def test_what_was_backed_up_answers_the_same_from_another_home(
    built: Path, sandbox_url: str, first_answers: tuple[dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    home, file = tmp_path / "elsewhere", str(tmp_path / "backup.tar.gz")
    for folder, command in ((built, "backup"), (home, "restore")):
        done = subprocess.run(
            [*BOOKCLUB, command, file], env=environment(folder, sandbox_url), capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
    (built / "mlflow").rename(built / "away")  # nothing of the old home may be needed
    try:
        assert answers(home, sandbox_url) == first_answers
    finally:
        (built / "away").rename(built / "mlflow")


def test_a_second_build_sees_the_same_books_and_changes_none(built: Path, sandbox_url: str) -> None:
    with connected(built) as connection:
        before = connection.execute(tables.select_books()).mappings().all()
        version = connection.scalar(tables.select_data_version())
    build(built, sandbox_url)
    with connected(built) as connection:
        after = connection.execute(tables.select_books()).mappings().all()
        assert connection.scalar(tables.select_data_version()) == version
    assert [dict(row) | {"last_seen_at": None} for row in after] == [
        dict(row) | {"last_seen_at": None} for row in before
    ]
    assert all(new["last_seen_at"] > old["last_seen_at"] for new, old in zip(after, before, strict=True))


def test_each_partition_carries_its_own_figures(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(built) as connection:
        counts = {row.category: row.books for row in connection.execute(tables.select_categories())}
    with leased(built) as url:
        monkeypatch.setenv("BOOKCLUB_DATABASE_URL", url)
        with dg.DagsterInstance.from_config(str(dagster_home(built))) as instance:
            _check_figures(instance, counts)


def _check_figures(instance: dg.DagsterInstance, counts: dict[str, int]) -> None:
    for key in (["books_toscrape", "raw_pages"], ["books_toscrape", "cleaned_books"], ["books"]):
        seen = {}
        for category in counts:
            (record,) = instance.fetch_materializations(
                dg.AssetRecordsFilter(dg.AssetKey(key), asset_partitions=[category]), limit=1
            ).records
            metadata = record.asset_materialization.metadata
            assert "seconds" in metadata
            seen[category] = metadata["dagster/row_count"].value
        assert seen == counts
    (model,) = instance.fetch_materializations(dg.AssetKey("tfidf_model"), limit=1).records
    metadata = model.asset_materialization.metadata
    assert metadata["decision"].value
    assert "/runs/" in str(metadata["mlflow_run"].value)
    assert "preview" in metadata


def test_a_shop_that_is_down_is_told_in_a_sentence(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = subprocess.run(
        [*BOOKCLUB, "build"], env=environment(tmp_path, nowhere), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert nowhere in done.stderr
    assert "BOOKCLUB_SHOP_URL" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def real_shop_url() -> Iterator[str]:
    port = free_port()
    serve = [sys.executable, str(SHARED / "shop" / "serve.py"), "--port", str(port)]
    with subprocess.Popen(serve, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@pytest.fixture(scope="module")
def built_from_real_shop(tmp_path_factory: pytest.TempPathFactory, real_shop_url: str) -> Path:
    home = tmp_path_factory.mktemp("real")
    build(home, real_shop_url)
    return home


@needs_real_shop
def test_the_table_equals_the_real_shop_in_every_field_of_every_book(
    built_from_real_shop: Path, real_shop_url: str
) -> None:
    lines = (SHARED / "shop" / "books.jsonl").read_text(encoding="utf-8").strip("\n").split("\n")
    expected = {book["upc"]: book for book in map(json.loads, lines)}
    with connected(built_from_real_shop) as connection:
        rows = connection.execute(tables.select_books()).mappings().all()
    assert {row["upc"] for row in rows} == set(expected)
    for row in rows:
        book = expected[row["upc"]]
        assert shown(row) == as_kept(book, real_shop_url)
        assert is_cleaned_form(row["description"], book["description"]), book["title"]
    assert len(rows) == 1000
    assert len({row["category"] for row in rows}) == 50
    assert sum(row["price"] for row in rows) == Decimal("35070.35")
    assert [count for _, count in sorted(Counter(row["rating"] for row in rows).items())] == [226, 196, 203, 179, 196]
    assert sum(row["stock"] for row in rows) == 8585
    assert sum(row["description"] is not None for row in rows) == 998
    assert sum(row["title"] == "The Star-Touched Queen" for row in rows) == 2
    assert not any(mark in f"{row['title']} {row['description']}" for row in rows for mark in ("Â£", "Ã©"))


def shown(row: sa.RowMapping) -> dict[str, Any]:
    ours = {"id", "first_seen_at", "last_seen_at", "updated_at", "description"}
    return {name: value for name, value in row.items() if name not in ours}


def as_kept(book: dict[str, Any], shop_url: str) -> dict[str, Any]:
    """A line of books.jsonl as the table should have it, its description apart."""
    return {
        "source": "books_toscrape",
        "source_id": book["upc"],
        "upc": book["upc"],
        "title": book["title"],
        "category": book["category_slug"],
        "category_name": book["category"],
        "price": Decimal(str(book["price_gbp"])),
        "currency": "GBP",
        "rating": book["rating"],
        "stock": book["stock"],
        "in_stock": book["stock"] > 0,
        "num_reviews": book["num_reviews"],
        "url": f"{shop_url}/{book['url_path']}",
        "image_url": f"{shop_url}/{book['image_path']}",
        "delisted_at": None,
    }


def is_cleaned_form(kept: str | None, found: str | None) -> bool:
    """Whether `kept` is `found` without its repeated lead and its " ...more", and without anything else.

    The lead is not always the same to the letter: marks and blanks that the shop's site dropped from it are skipped.
    """
    if found is None or kept is None or not found.endswith(" ...more"):
        return kept == found
    body = found.removesuffix(" ...more")
    lead = body.removesuffix(kept)
    return body.endswith(kept) and 200 < len(lead) < 400 and ascii_letters(kept).startswith(ascii_letters(lead))


def ascii_letters(text: str) -> str:
    return re.sub(r"[^A-Za-z]", "", text)


@needs_real_shop
def test_real_readers_agree_with_the_recommendations(built_from_real_shop: Path, real_shop_url: str) -> None:
    with api(built_from_real_shop, real_shop_url) as url:
        judged = subprocess.check_output([sys.executable, str(SHARED / "yardstick" / "score.py"), "--api", url])
    score = json.loads(judged)
    assert score["ndcg@10"] >= 0.31
    assert score["ndcg@10_other_authors"] >= 0.18


@needs_real_shop
def test_pages_are_kept_as_they_came_so_that_they_can_be_cleaned_again(built_from_real_shop: Path) -> None:
    from bookclub_platform.core.settings import load_settings
    from bookclub_platform.sources import read_raw_books, sources

    (shop,) = sources(load_settings(shop_url="http://127.0.0.1:1"))
    kept = latest(built_from_real_shop / "raw", "books_toscrape", "poetry")
    assert kept is not None
    raw_books, rejected = read_raw_books(shop, "poetry", kept.path)
    assert not rejected
    (attic,) = (book for book in raw_books if book.title == "A Light in the Attic")
    assert attic.description is not None
    assert attic.description.endswith(" ...more")
    (cleaned,) = (book for book in clean(raw_books).books if book.title == "A Light in the Attic")
    assert cleaned.description is not None
    assert attic.description.count("It's hard to imagine a world") == 2
    assert cleaned.description.count("It's hard to imagine a world") == 1
