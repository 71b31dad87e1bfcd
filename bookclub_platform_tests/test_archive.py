"""Kept pages: what goes in comes out, other tools read it, a damaged or half file is never taken for a whole one."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bookclub_platform.core.book import Category
from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources import Page, PageArchive, latest, read_pages

TRAVEL = Category("travel", "Travel & More", "http://shop.test/catalogue/category/books/travel_2/index.html")
WHEN = datetime(2025, 11, 21, 9, 8, 7, 654321, tzinfo=UTC)
PAGES = [
    Page("http://shop.test/a", 200, (("Content-Type", "text/html"), ("Set-Cookie", "a"), ("Set-Cookie", "b")), b"", "listing", WHEN),  # noqa: E501
    Page("http://shop.test/b?c=d%20e", 200, (("X-Archive-Orig-Content-Encoding", "gzip"),), "“£51.77”\r\n".encode(), "book", WHEN),  # noqa: E501
    Page("http://shop.test/c", 200, (), bytes(range(256)) * 500 + b"WARC/1.1\r\n\r\n", "book", WHEN),
]  # fmt: skip


def kept(folder: Path, crawl_id: str = "20251121T090807Z", pages: list[Page] = PAGES, is_complete: bool = True) -> Path:
    with PageArchive(folder, "shop", TRAVEL, crawl_id) as archive:
        for page in pages:
            archive.append(page)
        return archive.finish(is_complete)


def test_pages_come_back_as_they_went_in(tmp_path: Path) -> None:
    assert list(read_pages(kept(tmp_path))) == PAGES


def test_the_file_lies_where_the_layout_says_and_tells_of_its_crawl(tmp_path: Path) -> None:
    path = kept(tmp_path, is_complete=False)
    assert path == tmp_path / "shop" / "travel" / "20251121T090807Z.warc.gz"
    crawl = latest(tmp_path, "shop", "travel")
    assert crawl is not None
    assert (crawl.path, crawl.crawl_id, crawl.category, crawl.is_complete) == (path, "20251121T090807Z", TRAVEL, False)
    assert abs((datetime.now(UTC) - crawl.finished_at).total_seconds()) < 60


def test_another_warc_tool_finds_nothing_to_complain_of(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "warcio.cli", "check", "-v", str(kept(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.count("digest pass") == len(PAGES) + 2


def test_the_newest_crawl_that_ended_is_the_latest(tmp_path: Path) -> None:
    assert latest(tmp_path, "shop", "travel") is None
    for crawl_id in ["20251121T000000Z-b", "20251122T000000Z-a", "20251120T000000Z-c"]:
        kept(tmp_path, crawl_id)
    with PageArchive(tmp_path, "shop", TRAVEL, "20251123T000000Z-d") as archive:
        archive.append(PAGES[0])
    crawl = latest(tmp_path, "shop", "travel")
    assert crawl is not None and crawl.crawl_id == "20251122T000000Z-a"


def test_pages_survive_a_kill_but_are_no_crawl(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from pathlib import Path
        from bookclub_platform_tests.test_archive import PAGES, TRAVEL
        from bookclub_platform.sources import PageArchive
        archive = PageArchive(Path(sys.argv[1]), "shop", TRAVEL, "1")
        for page in PAGES:
            archive.append(page)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, cwd=root, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert latest(tmp_path, "shop", "travel") is None
    (part,) = tmp_path.rglob("*.part")
    with gzip.open(part) as file:
        assert PAGES[2].body in file.read()


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path)
    whole = path.read_bytes()
    assert len(whole) > 500
    for length in [*range(0, len(whole), 23), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(PermanentSourceError, match="Crawl it again"):
            list(read_pages(path))
        with pytest.raises(PermanentSourceError, match="Crawl it again"):
            latest(tmp_path, "shop", "travel")


def test_a_file_cut_between_two_records_is_refused(tmp_path: Path) -> None:
    path = kept(tmp_path)
    whole = path.read_bytes()
    last_record = whole.rindex(b"\x1f\x8b\x08")
    path.write_bytes(whole[:last_record])
    assert gzip.decompress(path.read_bytes())
    with pytest.raises(PermanentSourceError, match="before the crawl's end"):
        list(read_pages(path))


def test_a_flipped_bit_is_noticed_or_harmless(tmp_path: Path) -> None:
    path = kept(tmp_path)
    whole = path.read_bytes()
    refused = 0
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        try:
            assert list(read_pages(path)) == PAGES
        except PermanentSourceError:
            refused += 1
    assert refused > len(whole) // 37 * 0.9


@pytest.mark.parametrize("name", ["../travel", "a/b", "", ".", "..", ".hidden", "a\x00b"])
def test_a_name_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(PermanentSourceError, match="cannot be the name"):
        PageArchive(tmp_path, "shop", Category(name, "x", "http://shop.test/"), "1")
    with pytest.raises(PermanentSourceError, match="cannot be the name"):
        PageArchive(tmp_path, "shop", TRAVEL, name)
    assert os.listdir(tmp_path) in ([], ["shop"])  # noqa: PTH208
