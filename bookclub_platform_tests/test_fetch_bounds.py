"""What a hostile answer can cost: bytes, memory, time, and what is no page at all."""

from __future__ import annotations

import contextlib
import gzip
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from functools import cache

import pytest

from bookclub_platform.core.errors import PermanentSourceError, TransientSourceError
from bookclub_platform.sources import Fetcher, Patience
from bookclub_platform_tests.misbehaving_shop import BODY, Answer, Handler, Misbehaving, first, open_shop

LIMITS = Patience(
    attempts=2, backoff_base_s=0.01, read_timeout_s=0.5, page_timeout_s=0.7, max_bytes=1_000_000, max_header_bytes=8_000
)


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop() as server:
        yield server


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(delay_s=0, concurrency=2, patience=LIMITS) as opened:
        yield opened


@cache
def bomb(coding: str) -> bytes:
    """200 MB of zeros in 200 KB, or again packed."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding.endswith("gzip") else 15)
    packed = b"".join(packer.compress(bytes(1_000_000)) for _ in range(200)) + packer.flush()
    return gzip.compress(packed) if coding == "gzip, gzip" else packed


def refused_in_little_memory(shop: Misbehaving, fetcher: Fetcher) -> None:
    fetcher.fetch(f"{shop.address}/warm", "book")
    tracemalloc.start()
    try:
        with pytest.raises(PermanentSourceError, match="larger than 1000000 bytes"):
            fetcher.fetch(f"{shop.address}/a", "book")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "gzip, gzip"])
def test_a_bomb_is_refused_and_memory_stays_flat(shop: Misbehaving, fetcher: Fetcher, coding: str) -> None:
    packed = bomb(coding)
    shop.answers["/a"] = lambda handler, _: handler.say(200, packed, Content_Encoding=coding)
    refused_in_little_memory(shop, fetcher)
    assert shop.visits["/a"] == 1


def test_a_bomb_in_the_body_of_a_redirect_is_none_either(shop: Misbehaving, fetcher: Fetcher) -> None:
    packed = bomb("gzip")
    shop.answers["/a"] = lambda handler, _: handler.say(302, packed, Content_Encoding="gzip", Location="/b")
    refused_in_little_memory(shop, fetcher)


def endless(handler: Handler, visit: int) -> None:
    """A body in chunks that ends only when nobody listens any more."""
    handler.say(200, b"", Transfer_Encoding="chunked", Content_Length=None)
    with contextlib.suppress(ConnectionError):
        while not handler.server.released.is_set():
            handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
    handler.close_connection = True


def endless_comment(handler: Handler, visit: int) -> None:
    """A gzip header that never ends: nothing to unpack ever comes of it."""
    handler.say(200, b"\x1f\x8b\x08\x10\0\0\0\0\0\xff", Content_Encoding="gzip", Content_Length="99999999999")
    with contextlib.suppress(ConnectionError):
        while not handler.server.released.is_set():
            handler.wfile.write(b"x" * 65536)
    handler.close_connection = True


def endless_comment_without_length(handler: Handler, visit: int) -> None:
    handler.say(200, b"\x1f\x8b\x08\x10\0\0\0\0\0\xff", Content_Encoding="gzip", Content_Length=None)
    with contextlib.suppress(ConnectionError):
        while not handler.server.released.is_set():
            handler.wfile.write(b"x" * 65536)
    handler.close_connection = True


@pytest.mark.parametrize("answer", [endless, endless_comment, endless_comment_without_length])
def test_a_body_without_an_end_is_refused(shop: Misbehaving, fetcher: Fetcher, answer: Answer) -> None:
    shop.answers["/a"] = answer
    with pytest.raises(PermanentSourceError, match="larger than 1000000 bytes"):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert fetcher.counters().bytes < 1_200_000


def test_headers_beyond_the_cap_are_refused(shop: Misbehaving, fetcher: Fetcher) -> None:
    fields: dict[str, str | None] = {f"X_{n}": "x" * 500 for n in range(20)}
    shop.answers["/a"] = lambda handler, _: handler.say(200, BODY, **fields)
    with pytest.raises(PermanentSourceError, match="bytes of headers"):
        fetcher.fetch(f"{shop.address}/a", "book")


def trickling_headers(handler: Handler, visit: int) -> None:
    """A byte every 50 ms: no single wait is long."""
    with contextlib.suppress(ConnectionError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not handler.server.released.wait(0.05):
            handler.wfile.write(b"x")
    handler.close_connection = True


@pytest.mark.parametrize("length", ["9" * 5000, "20000000"])
def test_a_length_beyond_the_cap_is_refused_before_the_body(shop: Misbehaving, fetcher: Fetcher, length: str) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, BODY, Content_Length=length)
    with pytest.raises(PermanentSourceError, match="larger than 1000000 bytes"):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert fetcher.counters().bytes == 0


def test_headers_that_trickle_end_with_the_time_for_a_page(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = trickling_headers
    started = time.monotonic()
    with pytest.raises(TransientSourceError):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert time.monotonic() - started < 2 * LIMITS.page_timeout_s + 1
    assert shop.visits["/a"] == 2


@pytest.mark.parametrize("content_type", ["image/png", "IMAGE/JPEG; q=1", "application/pdf", "video/mp4", "font/woff2"])
def test_an_image_or_pdf_where_a_page_is_due_is_refused(shop: Misbehaving, fetcher: Fetcher, content_type: str) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, Content_Type=content_type)
    with pytest.raises(PermanentSourceError, match="where a page is due"):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == 1


@pytest.mark.parametrize("content_type", ["text/csv", "application/json", "application/octet-stream", None])
def test_files_and_answers_of_a_web_api_need_no_html(
    shop: Misbehaving, fetcher: Fetcher, content_type: str | None
) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, b"id,title", Content_Type=content_type)
    assert fetcher.fetch(f"{shop.address}/a", "listing").body == b"id,title"
    assert shop.visits["/a"] == 1


def test_a_page_that_stays_cut_is_handed_over_for_its_parser_to_judge(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, BODY[:8])
    assert fetcher.fetch(f"{shop.address}/a", "book").body == BODY[:8]
    assert shop.visits["/a"] == LIMITS.attempts


@pytest.mark.parametrize("length", [str(8), None])
def test_a_page_that_comes_cut_once_is_asked_for_again(shop: Misbehaving, fetcher: Fetcher, length: str | None) -> None:
    shop.answers["/a"] = first(
        1, lambda handler, _: handler.say(200, BODY[:8], Content_Length=length, Connection="close")
    )
    assert fetcher.fetch(f"{shop.address}/a", "book").body == BODY


def test_a_page_in_utf_16_closes_too(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, "<HTML>£</HTML>\n".encode("utf-16"))
    fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == 1


def test_a_source_may_say_what_a_whole_page_is(shop: Misbehaving) -> None:
    shop.answers["/a"] = lambda handler, visit: handler.say(200, b"end" if visit == 3 else b"e")
    patience = Patience(backoff_base_s=0.01)
    with Fetcher(
        delay_s=0, concurrency=1, patience=patience, is_whole=lambda page: page.body.endswith(b"end")
    ) as fetcher:
        assert fetcher.fetch(f"{shop.address}/a", "book").body == b"end"
