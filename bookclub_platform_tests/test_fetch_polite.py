"""How the shop is treated: who asks, robots.txt, pace. Other people's cases: ../shared/suites/robots_cases.json."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from bookclub_platform.core.errors import ConfigurationError, PermanentSourceError, ShopUnavailable
from bookclub_platform.sources import Fetcher, Page, Patience
from bookclub_platform.sources._politeness import Gate, Robots
from bookclub_platform_tests.misbehaving_shop import (
    Answer,
    Handler,
    Misbehaving,
    first,
    open_shop,
    reset,
    robots,
    slow,
    status,
)

CASES = Path(__file__).parents[2] / "shared" / "suites" / "robots_cases.json"
HASTY = Patience(attempts=4, backoff_base_s=0.01, read_timeout_s=0.5)

# Where protego, and so we, differ from Google's parser: place in the list -> why.
DIFFERENCES = {
    19: "an unknown line between user agents begins a new group, against RFC 9309, 2.2.4; Google reads on",
    **dict.fromkeys((30, 31, 32, 36, 37, 38), "'Foo Bar' is no name for 'Foo'; Google cuts names at the space"),
    **dict.fromkeys((39, 40), "the same: not required by RFC 9309"),
    62: "the path ends in a backslash and an n, lost in translation from C++, which we take for part of it",
    65: "escapes in a path match the bare letters in a URL, as RFC 9309, 2.2.2 wants; Google wants URLs escaped",
    66: "needless escapes in a path are read as the letters that they stand for, as RFC 9309, 2.2.2 wants",
}


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop() as server:
        yield server


def echoed_headers(handler: Handler, visit: int) -> None:
    handler.say(200, json.dumps(dict(handler.headers)).encode(), Content_Type="application/json")


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not at hand")
def test_robots_txt_is_read_as_google_reads_it_but_for_listed_differences() -> None:
    cases = json.loads(CASES.read_text(encoding="utf-8"))
    wrong = {
        place
        for place, case in enumerate(cases)
        if Robots.from_text(case["robots"].encode(), case["ua"]).allows(case["url"]) is not case["allowed"]
    }
    assert len(cases) == 142 and wrong == set(DIFFERENCES) and len(wrong) == 12


@pytest.mark.parametrize("contact", ["us@example.org", "https://example.org/crawler"])
def test_the_shop_is_told_whom_it_can_turn_to(shop: Misbehaving, contact: str) -> None:
    shop.answers["/a"] = echoed_headers
    with Fetcher(delay_s=0, concurrency=1, contact=contact) as fetcher:
        sent = json.loads(fetcher.fetch(f"{shop.address}/a", "book").body)
    assert sent["User-Agent"] == f"bookclub-platform (+{contact}; a crawler that obeys robots.txt)"
    assert sent.get("From") == (contact if "@" in contact else None)


@pytest.mark.parametrize("contact", ["a b", "a\r\nHost: b", "é@example.org", "x)"])
def test_a_contact_that_is_none_names_its_setting(contact: str) -> None:
    with pytest.raises(ConfigurationError, match="BOOKCLUB_CRAWL_CONTACT"):
        Fetcher(delay_s=0, concurrency=1, contact=contact)


def test_robots_txt_is_read_again_when_it_is_old(shop: Misbehaving) -> None:
    with Fetcher(delay_s=0, concurrency=1, patience=Patience(robots_age_s=0.2)) as fetcher:
        for _ in range(3):
            fetcher.fetch(f"{shop.address}/a", "book")
        assert shop.visits["/robots.txt"] == 1
        shop.answers["/robots.txt"] = robots("User-agent: *\nDisallow: /a")
        time.sleep(0.25)
        with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
            fetcher.fetch(f"{shop.address}/a", "book")
    assert Patience().robots_age_s == 24 * 3600


@pytest.mark.parametrize("trouble", [status(503), reset])
def test_a_robots_txt_that_cannot_be_read_again_stands_as_it_was(
    shop: Misbehaving, trouble: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    shop.answers["/robots.txt"] = robots("User-agent: *\nDisallow: /private")
    patience = Patience(robots_age_s=0.05, backoff_base_s=0.01)
    with Fetcher(delay_s=0, concurrency=1, patience=patience) as fetcher:
        fetcher.fetch(f"{shop.address}/a", "book")
        shop.answers["/robots.txt"] = trouble
        time.sleep(0.1)
        with caplog.at_level(logging.WARNING):
            assert fetcher.fetch(f"{shop.address}/a", "book").status == 200
        assert "its last version stands" in caplog.text
        with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
            fetcher.fetch(f"{shop.address}/private", "book")


def test_a_crawl_delay_beyond_patience_is_one_clear_error(shop: Misbehaving) -> None:
    shop.answers["/robots.txt"] = robots("User-agent: *\nCrawl-delay: 86400")
    with Fetcher(delay_s=0, concurrency=1) as fetcher:
        for _ in range(2):
            with pytest.raises(ShopUnavailable, match="asks for 86400 s between requests"):
                fetcher.fetch(f"{shop.address}/a", "book")
    assert shop.visits["/robots.txt"] == 1


def test_a_date_in_retry_after_is_waited_for(shop: Misbehaving) -> None:
    def busy(handler: Handler, visit: int) -> None:
        soon = datetime.now(UTC) + timedelta(seconds=2)
        handler.say(503, b"", Retry_After=format_datetime(soon, usegmt=True))

    shop.answers["/a"] = first(1, busy)
    with Fetcher(delay_s=0, concurrency=1, patience=HASTY) as fetcher:
        fetcher.fetch(f"{shop.address}/a", "book")
    asked, again = (at for path, at in shop.starts if path == "/a")
    assert again - asked > 0.9  # such a date has whole seconds


def test_too_many_requests_without_a_time_holds_all_threads(shop: Misbehaving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "backoff_s", lambda *_: 0.5)
    with Fetcher(delay_s=0.01, concurrency=4, patience=HASTY) as fetcher:
        fetcher.fetch(f"{shop.address}/warm", "book")
        shop.answers["/0"] = first(1, status(429))
        outcomes = list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(20)], "book"))
    assert all(isinstance(outcome, Page) for outcome in outcomes)
    asked = next(at for path, at in shop.starts if path == "/0")
    assert min(at for path, at in shop.starts if at > asked + 0.1) > asked + 0.45


def test_a_shop_that_becomes_slow_is_asked_less_often(shop: Misbehaving, caplog: pytest.LogCaptureFixture) -> None:
    for n in range(40):
        shop.answers[f"/{n}"] = slow(0.1)
    with (
        Fetcher(delay_s=0, concurrency=8, patience=Patience(brisk_s=0.05)) as fetcher,
        caplog.at_level(logging.WARNING),
    ):
        assert len(list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(30)], "book"))) == 30
    late = sorted(at for _, at in shop.starts)[-10:]
    assert (late[-1] - late[0]) / 9 > 0.07  # eight at once would be 0.0125
    assert "answers slowly" in caplog.text


def test_a_pace_follows_answers_up_and_down_and_never_undercuts_the_delay() -> None:
    gate = Gate(0.3, brisk_s=0.5)
    assert gate.pace_s == 0.3
    assert not gate.learn(2.0, is_page=True) and gate.pace_s == 0.3  # one slow answer is none
    for _ in range(20):
        gate.learn(2.0, is_page=True)
    assert 1.9 < gate.pace_s < 2
    for _ in range(20):
        gate.learn(0.01, is_page=False)  # errors that come quickly
    assert 1.9 < gate.pace_s < 2
    for _ in range(20):
        gate.learn(0.01, is_page=True)
    assert gate.pace_s == 0.3
