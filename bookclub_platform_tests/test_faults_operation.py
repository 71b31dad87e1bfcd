"""Faults that one part of the operation must not pass on to others: each seen on the real parts."""

from __future__ import annotations

import errno
import json
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from bookclub_platform import sandbox
from bookclub_platform.assets._common import CATEGORIES, range_tags
from bookclub_platform.assets.tfidf_model import CHALLENGER, CHAMPION, _judged
from bookclub_platform.build import _refuse_beside_a_crawl
from bookclub_platform.core.book import Book
from bookclub_platform.core.cleaned import CleanedCategory, write_cleaned
from bookclub_platform.core.errors import AlreadyRunning
from bookclub_platform.core.files import replaced
from bookclub_platform.core.settings import load_settings
from bookclub_platform.definitions import build_definitions
from bookclub_platform.failures import cause_of
from bookclub_platform.local.home import dagster_home, held_shop, project_file
from bookclub_platform.models import Judge, Tfidf, _embedding
from bookclub_platform.sensors import discover
from bookclub_platform.sources import sources
from bookclub_platform_tests.local_http import Handler, served
from bookclub_platform_tests.test_build import BOOKCLUB, build, environment
from bookclub_platform_tests.test_tables import NOON
from bookclub_platform_tests.test_tfidf import shelf


def bookclub(home: Path, shop_url: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOOKCLUB, *words], env=environment(home, shop_url, **more), capture_output=True, text=True, timeout=120
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home that was built once, and the address of its shop, which is gone by now."""
    home = tmp_path_factory.mktemp("home")
    with sandbox.running(books=40, seed=5) as url:
        build(home, url)
    return home, url


def test_a_damaged_file_holds_back_its_own_category_alone(built: tuple[Path, str]) -> None:
    home, url = built
    spoilt, sound = sorted((home / "raw" / "books_toscrape").iterdir())[:2]
    (file,) = spoilt.glob("*.warc.gz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    before = (home / "cleaned" / "books_toscrape" / f"{spoilt.name}.jsonl").read_bytes()
    try:
        assert bookclub(home, url, "clean", sound.name).returncode == 0
        everything = bookclub(home, url, "clean")
        assert everything.returncode == 0 and f"{spoilt.name}: {file}: is damaged" in everything.stderr
        alone = bookclub(home, url, "clean", spoilt.name)
        assert alone.returncode == 1 and "is damaged" in alone.stderr and "Traceback" not in alone.stderr
    finally:
        file.write_bytes(whole)
    assert (home / "cleaned" / "books_toscrape" / f"{spoilt.name}.jsonl").read_bytes() == before


def test_a_champion_that_needs_an_extra_that_is_gone_is_told_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> None:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(_embedding, "distribution", absent)
    new, old = Tfidf().fit(shelf()), Tfidf().fit(shelf())
    old.embedding, old.embedding_components_ = "minilm", None  # as one that was trained with the extra
    assert old.embedding_ is not None
    old.embedding_mean_ = np.zeros(old.embedding_.shape[1], dtype=np.float32)
    with pytest.raises(dg.Failure, match=r"\[embedding\].*bookclub model promote") as told:
        _judged(Judge(shelf(), []), {CHALLENGER: new, CHAMPION: old}, shelf())
    assert "BOOKCLUB_EMBEDDING" not in str(told.value.description)


def test_dagster_without_a_launcher_never_mixes_two_shops_in_a_home(
    built: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sandbox.running(books=12, seed=2) as other, dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, ["travel"])

        def crawl(home: Path) -> str:
            monkeypatch.setenv("BOOKCLUB_HOME", str(home))
            monkeypatch.setenv("BOOKCLUB_SHOP_URL", other)
            definitions = build_definitions(load_settings())
            (asked,) = discover(sources(load_settings())).failures.values() or [""]
            done = dg.materialize(
                list(definitions.assets or []),
                instance=instance,
                resources=dict(definitions.resources or {}),
                selection=["books_toscrape/raw_pages"],
                tags=range_tags(["travel"]),
                raise_on_error=False,
            )
            failed = [event.step_failure_data.error for event in done.all_node_events if event.is_step_failure]
            assert [asked in cause_of(error) for error in failed] in ([], [True])
            return asked

        assert f"Set BOOKCLUB_SHOP_URL={built[1]}, or BOOKCLUB_HOME to another folder" in crawl(built[0])
        assert crawl(tmp_path) == ""
        assert held_shop(tmp_path) == other
        (tmp_path / "shop").write_text("sandbox\n")
        assert f"{tmp_path} holds the books of sandbox" in crawl(tmp_path)


def test_a_home_that_cannot_be_one_is_told_in_a_sentence(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file")
    for command in (["build"], ["categories", "list"], ["restore", str(home)]):
        done = bookclub(home, "http://127.0.0.1:9", *command)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert str(home) in done.stderr and "BOOKCLUB_HOME" in done.stderr, command


@pytest.mark.parametrize("before", ["", "intern.example"])
def test_a_proxy_is_not_asked_for_this_machine(tmp_path: Path, before: str) -> None:
    class Answers(Handler):
        def do_GET(self) -> None:
            self.say(200, b"3.17.2")

    with served(Answers) as address:
        proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": before, "NO_PROXY": before}
        done = bookclub(tmp_path, address, "doctor", "--json", MLFLOW_TRACKING_URI=address, **proxy)
    found = {row["part"]: row["is_well"] for row in json.loads(done.stdout)}
    assert found["shop"] and found["mlflow"]


def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("the old ones")
    with pytest.raises(OSError, match="no space"), replaced(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "no space")
    assert [one.name for one in tmp_path.iterdir()] == ["rows"] and path.read_text() == "the old ones"
    with replaced(path, mode=0o600) as file:
        file.write(b"the new ones")
    assert path.read_text() == "the new ones" and path.stat().st_mode & 0o777 == 0o600


def test_cleaned_rows_that_meet_a_fault_leave_no_part_of_a_file(tmp_path: Path) -> None:
    class Broken(list[Book]):
        def __iter__(self) -> Iterator[Book]:
            raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(OSError, match="no space"):
        write_cleaned(tmp_path / "travel.jsonl", CleanedCategory("crawl", NOON, True, Broken(), []))
    assert list(tmp_path.iterdir()) == []


def test_dagsters_own_settings_are_not_written_under_its_processes(tmp_path: Path) -> None:
    told = dagster_home(tmp_path) / "dagster.yaml"
    before = told.stat()
    dagster_home(tmp_path)
    assert told.stat() == before
    told.write_text("of an older release")
    with told.open() as reading:
        dagster_home(tmp_path)
        assert told.read_bytes() == project_file("dagster.yaml").read_bytes()
        assert reading.read() == "of an older release", "the file that was open is another"


@pytest.mark.parametrize("tags", [range_tags(["travel"]), {"dagster/partition": "travel"}])
def test_a_build_does_not_ask_a_shop_beside_a_run_that_does(tags: dict[str, str], tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, shop_url="http://127.0.0.1:9")
    definitions, found = build_definitions(settings), sources(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(CATEGORIES, ["travel"])
        for job in ("clean", "report", "retrain"):
            instance.create_run_for_job(definitions.resolve_job_def(job), status=dg.DagsterRunStatus.STARTED)
        _refuse_beside_a_crawl(instance, found)
        crawl = definitions.resolve_job_def("crawl")
        run = instance.create_run_for_job(crawl, status=dg.DagsterRunStatus.STARTED, tags=tags)
        with pytest.raises(AlreadyRunning, match=run.run_id):
            _refuse_beside_a_crawl(instance, found)
        instance.report_run_failed(run)
        _refuse_beside_a_crawl(instance, found)
