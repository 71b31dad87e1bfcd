"""Image URLs -> files, over real HTTP: a shop whose images the test puts there and takes away, and the sandbox."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from bookclub_platform.core.covers import name_path, read_index, thumbnail_of
from bookclub_platform.core.errors import ShopUnavailable
from bookclub_platform.sandbox import generate, running
from bookclub_platform.sources import Fetcher, Patience
from bookclub_platform.sources import _covers as covers
from bookclub_platform.sources._covers import CoverReport, collect_covers
from bookclub_platform.sources._images import THUMBNAIL_HEIGHT, NoPicture, checked
from bookclub_platform_tests.local_http import Handler, served

HASTY = Patience(attempts=2, backoff_base_s=0.01)


def drawn(form: str, width: int = 120, height: int = 400, mode: str = "RGB", seed: int = 0) -> bytes:
    noise = random.Random(seed).randbytes(width * height)
    image = Image.frombytes("L", (width, height), noise).convert("RGB").convert(mode)
    with BytesIO() as file:
        image.save(file, form)
        return file.getvalue()


@dataclass
class ImageShop:
    """`images`: path -> body, or the path that it is moved to; `asked` counts the requests of each."""

    address: str = ""
    images: dict[str, bytes | str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def collect(self, folder: Path, *paths: str, max_pixels: int = covers.MAX_PIXELS) -> CoverReport:
        self.asked.clear()
        with Fetcher(delay_s=0, concurrency=4, patience=HASTY) as fetcher:
            return collect_covers([self.address + path for path in paths], fetcher, folder, max_pixels)


@pytest.fixture
def shop() -> Iterator[ImageShop]:
    state = ImageShop()

    class Images(Handler):
        def do_GET(self) -> None:
            state.asked[self.path] += 1
            body, tag = state.images.get(self.path), f'"{self.path}"'
            if isinstance(body, str):
                self.say(302, Location=body, ETag=tag)
            else:
                self.say(404 if body is None else 200, body or b"", ETag=tag)

    with served(Images) as state.address:
        yield state


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def figures(report: CoverReport) -> tuple[int, int, int, int, int]:
    return report.new, report.same_bytes, report.known, len(report.rejected), len(report.failed)


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "gif")])
def test_an_image_is_kept_under_its_hash_as_it_came_with_a_thumbnail_and_a_line(
    shop: ImageShop, tmp_path: Path, form: str, suffix: str
) -> None:
    body = shop.images["/a"] = drawn(form)
    report = shop.collect(tmp_path, "/a")
    name = sha256(body).hexdigest()
    named = name_path(tmp_path, f"{shop.address}/a").relative_to(tmp_path).as_posix()
    assert files(tmp_path) == {
        *("index.jsonl", named, f"{name[:2]}/{name}.{suffix}", f"{name[:2]}/{name}.thumbnail.webp")
    }
    cover = read_index(tmp_path)[f"{shop.address}/a"]
    assert cover.path(tmp_path).read_bytes() == body
    assert (cover.sha256, cover.bytes, cover.width, cover.height) == (name, len(body), 120, 400)
    assert (cover.etag, cover.reason, report.bytes) == ('"/a"', None, len(body))
    with Image.open(cover.thumbnail_path(tmp_path)) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("WEBP", (60, THUMBNAIL_HEIGHT))


def test_the_thumbnail_of_a_url_is_found_without_the_index_also_of_covers_that_came_before(
    shop: ImageShop, tmp_path: Path
) -> None:
    body = shop.images["/a"] = drawn("PNG")
    shop.images["/b"] = b"no image"
    shop.collect(tmp_path, "/a", "/b")
    url = f"{shop.address}/a"
    thumbnail = read_index(tmp_path)[url].thumbnail_path(tmp_path)
    assert thumbnail_of(tmp_path, url) == thumbnail and sha256(body).hexdigest() in thumbnail.name
    assert thumbnail_of(tmp_path, f"{shop.address}/b") is thumbnail_of(tmp_path, "") is None
    for damaged in (b"../../settings", b"\xff", b""):
        name_path(tmp_path, url).write_bytes(damaged)
        assert thumbnail_of(tmp_path, url) is None
    name_path(tmp_path, url).unlink()
    assert figures(shop.collect(tmp_path, "/a")) == (0, 0, 1, 0, 0)
    assert thumbnail_of(tmp_path, url) == thumbnail


def test_only_what_is_new_is_fetched_and_equal_bytes_are_stored_once(shop: ImageShop, tmp_path: Path) -> None:
    shop.images |= {"/a": drawn("PNG"), "/same": drawn("PNG"), "/b": drawn("PNG", seed=1)}
    assert figures(shop.collect(tmp_path, "/a", "/same", "/a")) == (2, 1, 0, 0, 0)
    assert len(files(tmp_path)) == 5
    assert figures(shop.collect(tmp_path, "/a", "/same", "/b")) == (1, 0, 2, 0, 0)
    assert shop.asked == {"/robots.txt": 1, "/b": 1}


def test_an_image_that_is_redirected_is_known_by_the_url_on_the_page(shop: ImageShop, tmp_path: Path) -> None:
    shop.images |= {"/old": "/new", "/new": drawn("PNG")}
    assert figures(shop.collect(tmp_path, "/old")) == (1, 0, 0, 0, 0)
    assert figures(shop.collect(tmp_path, "/old")) == (0, 0, 1, 0, 0)
    assert shop.asked["/old"] == shop.asked["/new"] == 0


def test_what_is_no_image_is_rejected_with_the_reason_and_left_alone_for_a_while(
    shop: ImageShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.images |= {
        "/text": b"<html>no such image</html>",
        "/empty": b"",
        "/half": drawn("JPEG")[:2000],
        "/svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "/bmp": drawn("BMP"),
        "/bomb": bomb(30_000, 30_000),
        "/good": drawn("GIF"),
    }
    report = shop.collect(tmp_path, *shop.images)
    assert figures(report) == (1, 0, 0, 6, 0)
    reasons = {failed.url.rpartition("/")[2]: failed.reason for failed in report.rejected}
    assert (
        "no JPEG, PNG, WebP or GIF" in reasons["text"] and "no JPEG" in reasons["bmp"] and "no JPEG" in reasons["svg"]
    )
    assert "damaged" in reasons["half"] and "bomb" in reasons["bomb"]
    assert len(files(tmp_path)) == 4
    assert figures(shop.collect(tmp_path, *shop.images)) == (0, 0, 7, 0, 0)
    assert shop.asked.total() == 0
    monkeypatch.setattr(covers, "REJECTED_FOR", timedelta(0))
    shop.images["/half"] = drawn("JPEG")
    assert figures(shop.collect(tmp_path, "/half", "/good")) == (1, 0, 1, 0, 0)
    assert read_index(tmp_path)[f"{shop.address}/half"].reason is None


def test_an_image_with_too_many_pixels_is_refused_before_it_is_unpacked(shop: ImageShop, tmp_path: Path) -> None:
    shop.images |= {"/fits": drawn("PNG", 100, 100), "/large": drawn("PNG", 101, 100), "/bomb": bomb(9_000, 9_000)}
    report = shop.collect(tmp_path, *shop.images, max_pixels=10_000)
    assert report.new == 1
    assert [failed.reason for failed in report.rejected] == [
        "has 101 x 100 pixels; 10000 are the limit",
        "has 9000 x 9000 pixels; 10000 are the limit",
    ]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is that large."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


def test_what_cannot_be_had_is_told_and_asked_for_again(shop: ImageShop, tmp_path: Path) -> None:
    report = shop.collect(tmp_path, "/gone")
    assert figures(report) == (0, 0, 0, 0, 1)
    assert (report.failed[0].url, report.failed[0].kind) == (f"{shop.address}/gone", "cover")
    assert "404" in report.failed[0].reason
    shop.images["/gone"] = drawn("PNG")
    assert figures(shop.collect(tmp_path, "/gone")) == (1, 0, 0, 0, 0)


def test_a_shop_that_is_down_ends_the_collection(tmp_path: Path) -> None:
    with Fetcher(delay_s=0, concurrency=4, patience=HASTY) as fetcher, pytest.raises(ShopUnavailable):
        collect_covers(["http://127.0.0.1:1/a.jpg"], fetcher, tmp_path)


def test_a_collection_that_was_killed_goes_on_where_it_was(shop: ImageShop, tmp_path: Path) -> None:
    shop.images |= {f"/{n}": drawn("PNG", seed=n) for n in range(4)}
    shop.collect(tmp_path, "/0", "/1", "/2")
    index = tmp_path / covers.INDEX
    index.write_bytes(index.read_bytes()[:-20])  # the last line is torn
    lost = read_index(tmp_path)[f"{shop.address}/0"]
    lost.path(tmp_path).write_bytes(b"")  # and the machine lost power before the file was on the disk
    lost.thumbnail_path(tmp_path).unlink()
    assert figures(shop.collect(tmp_path, *shop.images)) == (3, 1, 1, 0, 0)
    assert set(shop.asked) == {"/robots.txt", "/0", "/2", "/3"}
    assert figures(shop.collect(tmp_path, *shop.images)) == (0, 0, 4, 0, 0)
    assert all(cover.path(tmp_path).read_bytes() for cover in read_index(tmp_path).values())


def test_thumbnails_keep_their_transparency_their_upright_side_and_their_smallness() -> None:
    def thumbnail(body: bytes) -> Image.Image:
        return Image.open(BytesIO(checked(body, covers.MAX_PIXELS).thumbnail))

    assert thumbnail(drawn("PNG", mode="RGBA")).mode in {"RGBA", "RGB"}
    with BytesIO() as file:
        Image.new("RGBA", (300, 400), (0, 0, 0, 0)).save(file, "PNG")
        clear = thumbnail(file.getvalue())
    assert (clear.mode, clear.size, clear.getpixel((0, 0))[3]) == ("RGBA", (150, 200), 0)  # type: ignore[index]
    with BytesIO() as file:
        exif = Image.Exif()
        exif[0x0112] = 6  # the camera was held upright
        Image.new("RGB", (400, 100)).save(file, "JPEG", exif=exif)
        assert thumbnail(file.getvalue()).size == (50, 200)
    assert thumbnail(drawn("JPEG", 60, 90)).size == (60, 90)
    assert thumbnail(drawn("JPEG", mode="CMYK")).size == (60, 200)
    assert thumbnail(drawn("PNG", 9000, 3)).size[0] <= 1600


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_bytes_damaged_anywhere_give_an_image_or_a_reason(form: str) -> None:
    rng, whole, refused = random.Random(form), drawn(form, 24, 32), 0
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(rng.choice([1, 3, 30])):
            body[rng.randrange(len(body))] = rng.randrange(256)
        try:
            checked(bytes(body[: rng.choice([len(body), rng.randrange(len(body))])]), 1_000_000)
        except NoPicture as error:
            refused += 1
            assert str(error)
    assert refused > 50


def test_all_covers_of_the_sandbox_come(tmp_path: Path) -> None:
    with running(books=60, seed=3) as address, Fetcher(delay_s=0, concurrency=8) as fetcher:
        urls = [f"{address}/{book.cover}" for book in generate(60, 3).books]
        assert figures(collect_covers(urls, fetcher, tmp_path)) == (60, 0, 0, 0, 0)
        assert figures(collect_covers(urls, fetcher, tmp_path)) == (0, 0, 60, 0, 0)
    assert {(cover.width, cover.height) for cover in read_index(tmp_path).values()} == {(64, 96)}
