"""A shop rendered by JavaScript -> the same pages as in books_toscrape.py, as rendered by a browser.

    - name: shop_in_script
      kind: rendered_shop
      address: https://shop.example
      shown: article.product_page, ol.row       # a page is there when this is

Needs Chromium with its driver and the extra `browser` (selenium). The stored raw page is the rendered HTML.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Annotated, Literal

from pydantic import Field

from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._browser import Browser, BrowserFetcher
from bookclub_platform.sources._config import SourceConfig
from bookclub_platform.sources._contract import CrawlFetcher
from bookclub_platform.sources._web import Web
from bookclub_platform.sources.books_toscrape import BooksToScrape


class Config(SourceConfig):
    """`browser`, `driver`: the programs, found on the PATH where they are not set."""

    has_categories = True

    kind: Literal["rendered_shop"]
    shown: str = "article.product_page, ol.row"
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    browser: str | None = None
    driver: str | None = None


def build(config: Config, settings: Settings) -> RenderedShop:
    browser = Browser(config.address, config.shown, config.timeout_s, config.browser, config.driver)
    return RenderedShop(
        BooksToScrape(config.address, config.name, config.categories, Web.of(config, settings)), browser
    )


class RenderedShop(BooksToScrape):
    """A shop whose pages, once rendered by a browser, are those of books.toscrape.com."""

    def __init__(self, shop: BooksToScrape, browser: Browser) -> None:
        super().__init__(shop.address, shop.name, shop.mapping, shop.web)
        self.browser = browser

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        return BrowserFetcher(self.browser, self.web)
