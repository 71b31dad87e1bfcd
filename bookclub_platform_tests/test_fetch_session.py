"""What one request hands on to the next: the connection, the shop's cookies, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from bookclub_platform.sources import Fetcher
from bookclub_platform.sources._contract import Validators
from bookclub_platform_tests.local_http import Handler, served


class Mirror(Handler):
    """Answers with the headers that it was sent, and hands out a cookie."""

    def do_GET(self) -> None:
        body = b"" if self.path == "/robots.txt" else json.dumps(dict(self.headers.items())).encode()
        self.say(200, body, Content_Type="application/json", Set_Cookie="visit=1; Path=/")


@pytest.fixture
def addresses() -> Iterator[tuple[str, str]]:
    """Two hosts."""
    with served(Mirror) as one, served(Mirror) as other:
        yield one.removeprefix("http://"), other.removeprefix("http://")


def sent(fetcher: Fetcher, url: str, validators: Validators | None = None) -> dict[str, str]:
    page = fetcher.fetch(url, "book", validators)
    return dict(json.loads(page.body))  # type: ignore[union-attr]


def test_what_is_said_to_one_page_is_not_said_to_the_next(addresses: tuple[str, str]) -> None:
    one, other = addresses
    with Fetcher(delay_s=0, concurrency=1, contact="us@example.org") as fetcher:
        first = sent(fetcher, f"http://{one}/a?b=%20c", Validators('"1"', None))
        second, third = sent(fetcher, f"http://{one}/b"), sent(fetcher, f"http://{other}/b")
    assert first["If-None-Match"] == '"1"' and "If-None-Match" not in second
    assert [headers["Host"] for headers in (first, second, third)] == [one, one, other]
    assert second["Cookie"] == "visit=1"
    assert all("us@example.org" in headers["User-Agent"] for headers in (first, second, third))
    assert all(headers["Connection"] == "keep-alive" for headers in (first, second, third))
