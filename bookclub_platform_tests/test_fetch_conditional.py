"""Has the page changed since it last came? (RFC 9110, 13.1)"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sandbox import running
from bookclub_platform.sources import Fetcher, Page
from bookclub_platform.sources._charset import header
from bookclub_platform.sources._contract import Unchanged, Validators
from bookclub_platform_tests.misbehaving_shop import BODY, Handler, Misbehaving, first, open_shop, status

DAY = "Fri, 24 Jun 2016 09:29:00 GMT"


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop(conditional) as server:
        yield server


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    with Fetcher(delay_s=0, concurrency=4) as opened:
        yield opened


def conditional(handler: Handler, visit: int) -> None:
    """Knows the page by one weak ETag or, without any, by its day; says what it was asked."""
    asked = handler.headers["If-None-Match"], handler.headers["If-Modified-Since"]
    is_known = asked[0] == 'W/"7"' if asked[0] is not None else asked[1] == DAY
    handler.say(304 if is_known else 200, b"" if is_known else BODY, ETag='W/"7"', X_Asked=repr(asked))


@pytest.mark.parametrize(
    ("validators", "asked"),
    [
        (Validators('W/"7"', None), """('W/"7"', None)"""),
        (Validators('W/"7"', "Thu, 01 Jan 1970 00:00:00 GMT"), """('W/"7"', 'Thu, 01 Jan 1970 00:00:00 GMT')"""),
        (Validators(None, DAY), f"(None, '{DAY}')"),
    ],
)
def test_a_page_that_the_shop_knows_is_unchanged(
    shop: Misbehaving, fetcher: Fetcher, validators: Validators, asked: str
) -> None:
    answer = fetcher.fetch(f"{shop.address}/a", "book", validators)
    assert isinstance(answer, Unchanged)
    assert (answer.url, answer.kind, header(answer.headers, "etag")) == (f"{shop.address}/a", "book", 'W/"7"')
    assert header(answer.headers, "x-asked") == asked
    assert fetcher.counters().statuses[304] == 1 and fetcher.counters().bytes == 0


@pytest.mark.parametrize("validators", [None, Validators(None, None), Validators('"7"', DAY), Validators("é\n", "")])
def test_a_page_that_it_does_not_know_comes_whole(
    shop: Misbehaving, fetcher: Fetcher, validators: Validators | None
) -> None:
    answer = fetcher.fetch(f"{shop.address}/a", "book", validators)
    assert isinstance(answer, Page) and answer.body == BODY


def test_nobody_asked_whether_it_changed_and_it_says_unchanged(shop: Misbehaving, fetcher: Fetcher) -> None:
    shop.answers["/a"] = status(304)
    with pytest.raises(PermanentSourceError, match="304"):
        fetcher.fetch(f"{shop.address}/a", "book")


def test_each_url_is_asked_for_with_its_own_validators_also_after_a_failure(
    shop: Misbehaving, fetcher: Fetcher
) -> None:
    shop.answers["/0"] = lambda handler, visit: (status(503) if visit == 1 else conditional)(handler, visit)
    shop.answers["/4"] = first(1, status(404))
    known = {f"{shop.address}/{n}": Validators('W/"7"', None) for n in (0, 1, 2)}
    outcomes = list(fetcher.fetch_many([f"{shop.address}/{n}" for n in range(5)], "book", known.get))
    found = {outcome.url.rpartition("/")[2]: type(outcome).__name__ for outcome in outcomes}
    assert found == {"0": "Unchanged", "1": "Unchanged", "2": "Unchanged", "3": "Page", "4": "FailedPage"}


def test_the_second_visit_to_an_unchanged_sandbox_shop_transfers_no_page() -> None:
    with running(books=20) as address, Fetcher(delay_s=0, concurrency=4) as fetcher:
        urls = [f"{address}/", f"{address}/catalogue/page-1.html"]
        pages = list(fetcher.fetch_many(urls, "listing"))
        assert all(isinstance(page, Page) for page in pages)
        known = {
            page.url: Validators(header(page.headers, "etag"), header(page.headers, "last-modified"))
            for page in pages
            if isinstance(page, Page)
        }
        before = fetcher.counters()
        assert {type(answer) for answer in fetcher.fetch_many(urls, "listing", known.get)} == {Unchanged}
        spent = fetcher.counters() - before
        assert (spent.bytes, spent.statuses) == (0, {304: 2})
