"""A page and a link on it -> the absolute address. Shops' pages contain links that no parser accepts: `http://[x`."""

from __future__ import annotations

from urllib.parse import urljoin

from bookclub_platform.core.errors import PageRejected
from bookclub_platform.sources._contract import Page


def joined(page: Page, link: str) -> str:
    """The address that the crawl needs to go on.

    Raises:
        PageRejected: the link is not an address.
    """
    try:
        return _address(page, link)
    except ValueError as error:
        raise PageRejected(page.url, f"has the link {link!r}, which is not an address: {error}") from error


def joined_if_valid(page: Page, link: str) -> str | None:
    """The address, or None: the crawl can do without it."""
    try:
        return _address(page, link)
    except ValueError:
        return None


def _address(page: Page, link: str) -> str:
    """Raises ValueError."""
    address = urljoin(page.url, link)
    address.encode()  # JSON can hold half a character, which no address can
    return address
