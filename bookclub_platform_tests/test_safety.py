"""Where the fetcher does not go; other people's vectors are in ../shared/suites/ssrf_vectors.json."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from bookclub_platform.core.errors import PermanentSourceError, ShopUnavailable
from bookclub_platform.sources import FailedPage, Fetcher, Page, Patience
from bookclub_platform.sources._safety import AddressRefused, Shops, addresses, is_public
from bookclub_platform_tests.misbehaving_shop import BODY, Misbehaving, open_shop, robots, status

VECTORS = Path(__file__).parents[2] / "shared" / "suites" / "ssrf_vectors.json"
needs_vectors = pytest.mark.skipif(not VECTORS.exists(), reason="the vectors are not at hand")
REAL = "http://books.toscrape.com"
# Addresses in the suite that are ordinary public ones: its authors' tests put them on lists of their own. A page there
# is refused all the same, because it is not on the shop's host.
PUBLIC = {
    *("1.2.3.4", "132.0.5.0/24", "132.0.5.1", "144.1.1.1", "152.0.0.0/8", "152.254.90.1", "178.254.90.1", "200.1.1.1"),
    "2607:f8b0:400a:807::200e",
}
HASTY = Patience(attempts=2, robots_attempts=1, backoff_base_s=0.01, connect_timeout_s=0.5, read_timeout_s=0.5)
LOOKUP = socket.getaddrinfo


@pytest.fixture
def shop() -> Iterator[Misbehaving]:
    with open_shop() as server:
        yield server


def vectors() -> dict[str, list[str]]:
    loaded: dict[str, list[str]] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return loaded


def dns(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Names resolve to these answers, one after another; the last stays. Returns the names that were asked for."""
    asked: list[str] = []

    def lookup(host: str, port: int, *rest: Any, **options: Any) -> list[Any]:
        try:
            return LOOKUP(host, port, flags=socket.AI_NUMERICHOST, type=socket.SOCK_STREAM)
        except socket.gaierror:
            asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


@needs_vectors
def test_every_url_of_the_suite_is_refused_before_anything_is_sent() -> None:
    suite = vectors()
    urls = [*suite["must_block_urls"], *suite["all_urls"]]
    urls += [f"http://[{ip}]/" if ":" in ip else f"http://{ip}/" for ip in suite["advocate_ips"]]
    assert len(urls) == 133 + 233 + 38
    with Fetcher(delay_s=0, concurrency=4, shops=[REAL]) as fetcher:
        outcomes = list(fetcher.fetch_many(urls, "book"))
        assert len(outcomes) == len(urls) and all(isinstance(outcome, FailedPage) for outcome in outcomes)
        assert fetcher.counters().requests == 0


@needs_vectors
def test_a_shop_whose_name_leads_to_an_address_of_the_suite_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for written in vectors()["advocate_ips"]:
        network = ip_network(written)
        for address in (network[0], network[-1]):
            assert is_public(address) is (written in PUBLIC)
            if address.version == 4 and written not in PUBLIC:
                dns(monkeypatch, [str(address)])
                with pytest.raises(AddressRefused, match=str(address)):
                    addresses("books.example", 80)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "fe80::1", "fd00:ec2::254", "100.100.100.200", "0.0.0.0"),
        *("::", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:1::1", "192.0.0.192", "168.63.129.16"),
        *("224.0.0.1", "ff02::1", "255.255.255.255", "::7f00:1", "fec0::1", "192.88.99.1", "100::1", "2001:db8::1"),
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ip_network(address)[0])


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "64:ff9b::101:101"])
def test_ordinary_addresses_are_public(address: str) -> None:
    assert is_public(ip_network(address)[0])


@pytest.mark.parametrize(
    "url",
    [
        *("http://user@books.toscrape.com/", "http://user:word@books.toscrape.com/", "http://127.0.0.1\\@h/"),
        *(
            "http://books.toscrape.com\t.example/",
            "http://books.toscrape.com/\r\nHost: x",
            "http://bооks.toscrape.com/",
        ),
        *("http://2130706433/", "http://0x7f.1/", "http://127.1/", "http://0177.0.0.1/", "http://1.2.3.4.5/"),
        *("http://[::1%25eth0]/", "http://books.toscrape.com:0x50/", "http://%31/", "http://ⓔⓧ.com", "http:///a"),
    ],
)
def test_urls_that_two_parsers_may_read_differently_are_refused_on_any_host(url: str) -> None:
    with pytest.raises(PermanentSourceError):
        Shops().check(url)


def test_the_shop_is_its_host_and_port_and_nothing_else() -> None:
    shops = Shops([REAL, "http://127.0.0.1:8900"])
    for url in (
        f"{REAL}/a b",
        "https://books.toscrape.com/a",
        "http://BOOKS.toscrape.com:80/",
        "http://127.0.0.1:8900/",
    ):
        shops.check(url)
    for url in ("http://127.0.0.1:8901/", "http://127.0.0.1/", "http://www.books.toscrape.com/", f"{REAL}.evil.com/"):
        with pytest.raises(PermanentSourceError, match="another host"):
            shops.check(url)


def test_all_hosts_below_a_domain_may_be_allowed() -> None:
    shops = Shops(["https://docs.example.com", "https://*.files.example.com"])
    for host in ("docs.example.com", "a.files.example.com", "b.a.files.example.com"):
        shops.check(f"https://{host}/x")
    for host in ("files.example.com", "afiles.example.com", "files.example.com.evil.com", "a.files.example.com:8443"):
        with pytest.raises(PermanentSourceError, match="another host"):
            shops.check(f"https://{host}/x")


def test_a_link_that_leaves_the_shops_is_a_failed_page(shop: Misbehaving) -> None:
    with open_shop() as other, Fetcher(delay_s=0, concurrency=2, shops=[shop.address]) as fetcher:
        outcomes = list(fetcher.fetch_many([f"{shop.address}/a", f"{other.address}/a"], "book"))
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["FailedPage", "Page"]
        assert not other.visits


def test_a_redirect_between_configured_hosts_obeys_the_robots_txt_of_both(shop: Misbehaving) -> None:
    with open_shop() as other, Fetcher(delay_s=0, concurrency=2, shops=[shop.address, other.address]) as fetcher:
        shop.answers |= {f"/{name}": status(302, Location=f"{other.address}/{name}") for name in ("a", "private")}
        other.answers["/robots.txt"] = robots("User-agent: *\nDisallow: /private")
        assert fetcher.fetch(f"{shop.address}/a", "book").url == f"{other.address}/a"
        with pytest.raises(PermanentSourceError, match=r"robots\.txt"):
            fetcher.fetch(f"{shop.address}/private", "book")
        assert other.visits["/private"] == 0


@pytest.mark.parametrize(
    "location", ["http://[", "file:///etc/passwd", "http://a@127.0.0.1/", "//169.254.169.254/", "\0"]
)
def test_a_redirect_to_somewhere_odd_is_a_failed_page(shop: Misbehaving, location: str) -> None:
    shop.answers["/a"] = status(302, Location=location)
    with Fetcher(delay_s=0, concurrency=1, patience=HASTY) as fetcher, pytest.raises(PermanentSourceError):
        fetcher.fetch(f"{shop.address}/a", "book")


def test_a_public_name_that_leads_to_loopback_is_never_connected_to(
    shop: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns(monkeypatch, ["127.0.0.1"])
    port = shop.server_address[1]
    with (
        Fetcher(delay_s=0, concurrency=1, patience=HASTY, shops=[f"http://books.example:{port}"]) as fetcher,
        pytest.raises(ShopUnavailable, match=r"books\.example is at 127\.0\.0\.1, which is no public address"),
    ):
        fetcher.fetch(f"http://books.example:{port}/a", "book")
    assert not shop.visits


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    dns(monkeypatch, ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(AddressRefused):
        addresses("books.example", 80)


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(
    shop: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that changes its answer between the check and the connection: `shop` stands for a public one."""
    shop.answers["/robots.txt"] = robots("")  # a whole answer: the connection is kept
    asked = dns(monkeypatch, ["127.0.0.1"], ["127.9.9.9"])
    with Fetcher(delay_s=0, concurrency=1, patience=HASTY) as fetcher:
        assert fetcher.fetch(f"http://shop:{shop.server_address[1]}/a", "book").body == BODY
    assert asked == ["shop"]


def test_the_next_address_of_a_host_is_tried_when_the_first_does_not_answer(
    shop: Misbehaving, monkeypatch: pytest.MonkeyPatch
) -> None:
    dns(monkeypatch, ["127.9.9.9", "127.0.0.1"])
    with Fetcher(delay_s=0, concurrency=1, patience=HASTY) as fetcher:
        assert isinstance(fetcher.fetch(f"http://shop:{shop.server_address[1]}/a", "book"), Page)


def test_a_private_network_may_be_crawled_by_names_that_only_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    dns(monkeypatch, ["10.1.2.3"])
    for host in ("shop", "shop.internal", "shop.local"):
        assert addresses(host, 80) == ["10.1.2.3"]
    for host in ("shop.example.com", "10.1.2.3.nip.io", "localhost.example.com"):
        with pytest.raises(AddressRefused):
            addresses(host, 80)
    dns(monkeypatch, ["169.254.169.254"])
    with pytest.raises(AddressRefused):
        addresses("metadata", 80)
    assert addresses("127.0.0.1", 80) == ["127.0.0.1"]
    with pytest.raises(AddressRefused):
        addresses("169.254.169.254", 80)
