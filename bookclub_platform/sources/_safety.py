"""URL -> whether it may be fetched; host -> addresses that may be connected to. So a crawl never leaves its shops.

    shops = Shops(["http://books.toscrape.com"])
    shops.check("http://books.toscrape.com/a")       # PermanentSourceError: scheme, spelling, credentials, other host
    addresses("books.toscrape.com", 80)              # AddressRefused: the name resolves to a private network

The name is resolved once per connection, and the connection goes to the address that was checked, so that a name which
resolves differently the second time (DNS rebinding) achieves nothing. A private address is allowed only for a shop
whose name exists only in a private network (127.0.0.1, localhost, shop, shop.internal), never for a name that anybody
could register.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from bookclub_platform.core.errors import PermanentSourceError
from bookclub_platform.sources._contract import has_same_host

# Only what every URL parser reads the same way: no credentials, no backslash, no letters that only some normalise.
_PLAIN_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test")
_NAT64 = ip_network("64:ff9b::/96")
_GLOBAL_V6 = ip_network("2000::/3")
# What `is_global` of some supported Python versions considers public: old special networks, tunnels that embed an IPv4
# address, and the one public address that is internal to a cloud (Azure's wire server).
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",
        "192.88.99.0/24",
        "168.63.129.16/32",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
    )
)


class AddressRefused(Exception):
    """The host has an address that we refuse to connect to; `str()` says which."""


class Shops:
    """The addresses that may be requested.

    Args:
        addresses: of the configured shops; only their hosts and ports count. `https://*.example.com` matches all hosts
            below example.com, for shops that redirect to generated host names. None: any host that the caller requests,
            without redirects to another.
    """

    def __init__(self, addresses: Iterable[str] | None = None) -> None:
        self._addresses = None if addresses is None else tuple(addresses)

    def check(self, url: str, redirected_from: str | None = None) -> None:
        """Return if `url` may be requested. Raises PermanentSourceError."""
        _check_form(url)
        if self._addresses is not None:
            if not any(_is_at(url, address) for address in self._addresses):
                raise PermanentSourceError(url, "leads to another host than the shop's, where we do not go")
        elif redirected_from is not None and not has_same_host(url, redirected_from):
            raise PermanentSourceError(redirected_from, f"redirects to another host ({url}), where we do not go")


def _is_at(url: str, address: str) -> bool:
    name, _, domain = str(urlsplit(address).hostname).partition("*.")
    host = str(urlsplit(url).hostname)
    if domain and not name and host.endswith(f".{domain}"):
        address = address.replace(f"*.{domain}", host, 1)
    return has_same_host(url, address)


def _check_form(url: str) -> None:
    if not has_same_host(url, url):
        raise PermanentSourceError(url, "is no web address")
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise PermanentSourceError(url, "has a user or password in it")
    if _CONTROL.search(url) or not _PLAIN_HOST.fullmatch(parts.netloc):
        raise PermanentSourceError(url, "has a host that is not spelled plainly (ASCII letters, digits, '.', '-')")
    host = str(parts.hostname).rstrip(".")
    if _NUMBER.fullmatch(host.rpartition(".")[2]) and not isinstance(_literal(host), IPv4Address):
        raise PermanentSourceError(url, "has an oddly spelled IP address as host")


def addresses(host: str, port: int) -> list[str]:
    """The IP addresses of a host, all of which may be connected to.

    Raises:
        AddressRefused: one of them may not: a name that mixes public and private addresses is an attack.
        OSError: the name is unknown (socket.gaierror).
    """
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise AddressRefused(f"{host!r} is no host name") from error
    found = list(dict.fromkeys(str(info[4][0]) for info in infos))
    for address in found:
        if not _may_connect(host, ip_address(address.partition("%")[0])):
            raise AddressRefused(
                f"{host} is at {address}, which is no public address, and we do not go there. "
                "If the shop is meant to be there, give its address as IP address"
            )
    return found


def _may_connect(host: str, address: IPv4Address | IPv6Address) -> bool:
    if is_public(address):
        return True
    is_never = address.is_link_local or address.is_multicast or address.is_unspecified
    return _is_private_name(host) and (address.is_private or address.is_loopback) and not is_never


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is that of a single machine on the public internet."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address not in _GLOBAL_V6:
            return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not any(address in network for network in _NOT_PUBLIC)
    )


def _is_private_name(host: str) -> bool:
    host = host.lower().rstrip(".")
    literal = _literal(host)
    if literal is not None:
        return not is_public(literal)
    return "." not in host or host.endswith(_PRIVATE_NAMES)


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
