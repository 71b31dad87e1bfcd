"""The fetcher against a server on loopback that does what shops do on a bad day."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
import urllib3

from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable, TransientSourceError
from bookclub_platform.sources import FailedPage, Fetcher, Page, Patience, is_retryable
from bookclub_platform.sources._politeness import retry_after_s
from bookclub_platform_tests.local_http import free_port
from bookclub_platform_tests.misbehaving_shop import (
    BODY,
    Answer,
    Misbehaving,
    first,
    gzipped,
    half_body,
    half_of_the_chunks,
    hang,
    not_gzip,
    not_http,
    ok,
    open_shop,
    reset,
    robots,
    slow,
    status,
    trickle,
)
from bookclub_platform_tests.waiting import wait_for

HASTY = Patience(backoff_base_s=0.02, backoff_cap_s=0.1, connect_timeout_s=0.5, read_timeout_s=0.3, page_timeout_s=0.6)


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop() as server:
        yield server


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(delay_s=0, concurrency=4, patience=HASTY) as opened:
        yield opened


def test_a_page_comes_with_its_bytes_headers_and_time(shop: Misbehaving, fetcher: Fetcher) -> None:
    page = fetcher.fetch(f"{shop.address}/a", "book")
    assert (page.url, page.status, page.body, page.kind) == (f"{shop.address}/a", 200, BODY, "book")
    assert ("Content-Type", "text/html") in page.headers
    assert timedelta(0) <= datetime.now(UTC) - page.fetched_at < timedelta(seconds=5)


@pytest.mark.parametrize(
    "bad",
    [
        status(500),
        status(502),
        status(504),
        status(408),
        status(429),
        status(503, Retry_After="0"),
        reset,
        hang,
        half_body,
        half_of_the_chunks,
        trickle,
        not_http,
        not_gzip,
    ],
)
def test_trouble_that_passes_is_outlasted(shop: Misbehaving, fetcher: Fetcher, bad: Answer) -> None:
    shop.answers["/a"] = first(2, bad)
    assert fetcher.fetch(f"{shop.address}/a", "book").body == BODY
    assert shop.visits["/a"] == 3
    assert fetcher.counters().retries == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 501])
def test_a_clear_no_is_asked_for_once(shop: Misbehaving, fetcher: Fetcher, code: int) -> None:
    shop.answers["/a"] = status(code)
    with pytest.raises(PermanentSourceError, match=str(code)):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == 1


def test_trouble_that_stays_ends_after_the_set_attempts_and_says_what_it_was(
    shop: Misbehaving, fetcher: Fetcher
) -> None:
    shop.answers["/a"] = status(502)
    with pytest.raises(TransientSourceError, match="502 Bad Gateway"):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == HASTY.attempts


def test_retry_after_is_kept_by_every_thread(shop: Misbehaving, fetcher: Fetcher) -> None:
    fetcher.fetch(f"{shop.address}/warm", "book")
    shop.answers["/0"] = first(1, status(503, Retry_After="1"))
    outcomes = list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(40)], "book"))
    assert len(outcomes) == 40 and all(isinstance(outcome, Page) for outcome in outcomes)
    asked = next(at for path, at in shop.starts if path == "/0")
    again = [at - asked for path, at in shop.starts if at > asked + 0.1]
    assert shop.visits["/0"] == 2
    assert len(again) >= 20 and min(again) >= 0.95


def test_a_retry_after_beyond_patience_is_a_failure_that_says_so(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = status(503, Retry_After="3600")
    with pytest.raises(TransientSourceError, match="come back in 3600 s"):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("Fri, 21 Nov 2025 10:00:30 GMT", 30.0), ("Fri, 21 Nov 2025 09:00:00 GMT", 0.0), ("soon", None)],
)
def test_both_forms_of_retry_after_are_read(value: str, seconds: float | None) -> None:
    assert retry_after_s(value, datetime(2025, 11, 21, 10, 0, 0, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (500, True),
        (503, True),
        (429, True),
        (404, False),
        (304, False),
        (505, False),
        (requests.ConnectionError("reset"), True),
        (requests.ReadTimeout("slow"), True),
        (urllib3.exceptions.ProtocolError("half"), True),
        (requests.exceptions.SSLError("EOF occurred"), True),
        (requests.exceptions.SSLError("[SSL: CERTIFICATE_VERIFY_FAILED]"), False),
        (requests.exceptions.InvalidURL("http://"), False),
    ],
)
def test_transient_and_permanent_are_told_apart(outcome: int | Exception, expected: bool) -> None:
    assert is_retryable(outcome) is expected


def test_pauses_between_retries_grow_and_are_drawn_at_random() -> None:
    patience = Patience(backoff_base_s=1, backoff_cap_s=8)
    for retry, longest in enumerate([1, 2, 4, 8, 8, 8]):
        drawn = [patience.backoff_s(retry) for _ in range(300)]
        assert 0 <= min(drawn) < longest / 4 and longest * 3 / 4 < max(drawn) <= longest


def test_pages_come_as_they_are_ready_and_failures_do_not_end_the_rest(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers |= {"/3": status(404), "/0": slow(0.2)}
    urls = [f"{shop.address}/{n}" for n in range(30)]
    outcomes = list(fetcher.fetch_many(urls, "book"))
    assert {outcome.url for outcome in outcomes} == set(urls)
    assert [outcome for outcome in outcomes if isinstance(outcome, FailedPage)] == [
        FailedPage(urls[3], "book", "the shop answers 404 Not Found")
    ]
    assert outcomes[0].url != urls[0]


def test_no_more_than_the_set_number_is_under_way(shop: Misbehaving, fetcher: Fetcher) -> None:
    for n in range(24):
        shop.answers[f"/{n}"] = slow(0.03)
    assert len(list(fetcher.fetch_many((f"{shop.address}/{n}" for n in range(24)), "book"))) == 24
    assert shop.most_under_way == 4


def test_starts_are_apart_by_the_delay_whatever_the_number_of_threads(shop: Misbehaving) -> None:
    with Fetcher(delay_s=0.08, concurrency=8, patience=HASTY) as fetcher:
        list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(8)], "book"))
    times = sorted(at for _, at in shop.starts)
    assert len(times) == 9
    assert times[-1] - times[0] >= 8 * 0.08 - 0.02


def test_a_crawl_delay_in_robots_txt_is_kept(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.2")
    list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(4)], "book"))
    times = sorted(at for path, at in shop.starts if path != "/robots.txt")
    assert times[-1] - times[0] >= 0.55


def test_robots_txt_is_read_once_and_obeyed(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/robots.txt"] = robots(
        "User-agent: bookclub-platform\nDisallow: /private\n\nUser-agent: *\nDisallow: /"
    )
    fetcher.fetch(f"{shop.address}/a", "book")
    with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
        fetcher.fetch(f"{shop.address}/private/a", "book")
    assert shop.visits["/private/a"] == 0 and shop.visits["/robots.txt"] == 1


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_robots_txt_that_is_not_there_allows_all(shop: Misbehaving, fetcher: Fetcher, code: int) -> None:
    shop.answers["/robots.txt"] = status(code)
    assert fetcher.fetch(f"{shop.address}/a", "book").body == BODY


@pytest.mark.parametrize("bad", [status(500), status(503), status(501), reset])
def test_a_robots_txt_that_fails_allows_nothing(shop: Misbehaving, fetcher: Fetcher, bad: Answer) -> None:
    shop.answers["/robots.txt"] = bad
    for _ in range(2):
        with pytest.raises(ShopUnavailable, match="BOOKCLUB_SHOP_URL"):
            fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/a"] == 0 and shop.visits["/robots.txt"] <= HASTY.robots_attempts


def test_a_redirect_on_the_host_is_followed_and_the_page_bears_its_last_address(
    shop: Misbehaving, fetcher: Fetcher
) -> None:
    shop.answers["/old"] = status(301, Location="/new/index.html")
    assert fetcher.fetch(f"{shop.address}/old", "book").url == f"{shop.address}/new/index.html"


def test_a_redirect_to_another_host_is_not_followed(shop: Misbehaving, fetcher: Fetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        shop.answers["/a"] = status(302, Location=f"http://127.0.0.1:{other.getsockname()[1]}/")
        with pytest.raises(PermanentSourceError, match="another host"):
            fetcher.fetch(f"{shop.address}/a", "book")
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_redirect_does_not_lead_around_robots_txt(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers |= {"/robots.txt": robots("User-agent: *\nDisallow: /x"), "/a": status(302, Location="/x")}
    with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
        fetcher.fetch(f"{shop.address}/a", "book")


def test_redirects_in_a_circle_end(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = status(302, Location="/a")
    with pytest.raises(PermanentSourceError, match="redirects"):
        fetcher.fetch(f"{shop.address}/a", "book")


def test_a_body_above_the_cap_is_refused_without_reading_it_all(shop: Misbehaving) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, b"x" * 30_000_000)
    with (
        Fetcher(delay_s=0, concurrency=1, patience=Patience(max_bytes=1_000_000)) as fetcher,
        pytest.raises(PermanentSourceError, match="larger than 1000000 bytes"),
    ):
        fetcher.fetch(f"{shop.address}/a", "book")
    assert fetcher.counters().bytes < 3_000_000


def test_a_compressed_body_is_kept_decoded_and_its_headers_do_not_claim_otherwise(
    shop: Misbehaving, fetcher: Fetcher
) -> None:
    shop.answers["/a"] = gzipped
    page = fetcher.fetch(f"{shop.address}/a", "book")
    assert page.body == BODY
    assert ("X-Archive-Orig-Content-Encoding", "gzip") in page.headers
    assert not {"Content-Encoding", "Content-Length"} & {name for name, _ in page.headers}


def test_what_is_no_web_address_is_refused(fetcher: Fetcher) -> None:
    for url in ["ftp://127.0.0.1/a", "javascript:void(0)", "http://", "http://[host", "/a", "http://h:port/"]:
        with pytest.raises(PermanentSourceError):
            fetcher.fetch(url, "book")


def test_a_shop_that_is_down_is_one_clear_error_at_once() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    started = time.monotonic()
    with Fetcher(delay_s=0, concurrency=8) as fetcher:
        for _ in range(20):
            with pytest.raises(ShopUnavailable, match=r"refused.*BOOKCLUB_SHOP_URL"):
                fetcher.fetch(f"{address}/", "listing")
    assert time.monotonic() - started < 3


def test_a_shop_that_dies_in_a_crawl_is_given_up_after_a_bounded_number_of_requests(shop: Misbehaving) -> None:
    for n in range(20, 1000):
        shop.answers[f"/{n}"] = status(500)
    with Fetcher(delay_s=0, concurrency=8, patience=HASTY) as fetcher:
        came: list[Page | FailedPage] = []
        with pytest.raises(ShopUnavailable, match=r"50 more failures than answers.*500"):
            came.extend(fetcher.fetch_many((f"{shop.address}/{n}" for n in range(1000)), "book"))
        assert sum(shop.visits.values()) < 21 + 50 + 20 + 8


def test_a_shop_that_fails_every_third_time_gives_every_page(shop: Misbehaving) -> None:
    turns = itertools.count()
    moody: Answer = lambda handler, visit: (status(500) if next(turns) % 3 == 0 else ok)(handler, visit)  # noqa: E731
    shop.answers |= {f"/{n}": moody for n in range(300)}
    patience = Patience(attempts=12, backoff_base_s=0.001, backoff_cap_s=0.01)
    with Fetcher(delay_s=0, concurrency=8, patience=patience) as fetcher:
        outcomes = list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(300)], "book"))
    assert all(isinstance(outcome, Page) for outcome in outcomes) and len(outcomes) == 300


def test_counters_agree_with_what_the_shop_saw(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers |= {"/1": first(1, status(500)), "/2": status(404)}
    list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(10)], "book"))
    counters = fetcher.counters()
    assert counters.requests == sum(shop.visits.values()) == 12
    assert counters.statuses == {200: 9, 404: 2, 500: 1}
    assert (counters.retries, counters.bytes) == (1, 9 * len(BODY))
    assert sorted(status for _, _, status in counters.timings) == [200] * 9 + [404, 404, 500]
    assert all(0 < seconds < 5 and started < time.monotonic() for started, seconds, _ in counters.timings)


def test_a_reader_that_stops_early_ends_the_crawl(shop: Misbehaving) -> None:
    with Fetcher(delay_s=0.02, concurrency=8, patience=HASTY) as fetcher:
        pages = fetcher.fetch_many((f"{shop.address}/{n}" for n in itertools.count()), "book")
        next(pages)
        pages.close()
        time.sleep(0.6)
        assert (
            sum(shop.visits.values()) <= 12
        )  # robots.txt, the page, and what was under way: the rest of 16 is dropped


def test_closing_does_not_wait_for_a_shop_that_hangs(shop: Misbehaving) -> None:
    shop.answers["/a"] = hang
    fetcher = Fetcher(delay_s=0, concurrency=2)
    asking = threading.Thread(target=lambda: list(fetcher.fetch_many([f"{shop.address}/a"], "book")))
    asking.start()
    wait_for(lambda: shop.visits["/a"])
    started = time.monotonic()
    fetcher.close()
    assert time.monotonic() - started < 5
    shop.released.set()
    asking.join(5)
    assert not asking.is_alive() and shop.visits["/a"] == 1


def test_the_user_agent_names_the_project(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = lambda handler, _: handler.say(200, handler.headers["User-Agent"].encode() + b"</html>")
    assert fetcher.fetch(f"{shop.address}/a", "book").body.startswith(b"bookclub-platform ")


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="Linux alone acknowledges at once when asked")
def test_what_a_server_sends_is_acknowledged_at_once(shop: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends head and body apart waits 40 ms for a delayed acknowledgement. The kernel forgets what it was told
    here: it is told before each answer."""
    set_option, told = socket.socket.setsockopt, []

    def noted(of: socket.socket, *option: Any) -> None:
        told.append(option)
        set_option(of, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", noted)
    with Fetcher(delay_s=0, concurrency=1) as fetcher:
        for n in range(5):
            fetcher.fetch(f"{shop.address}/{n}", "book")
    answers = sum(shop.visits.values())
    assert answers == 6  # with robots.txt
    assert told.count((socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)) == answers
