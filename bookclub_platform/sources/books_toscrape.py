"""books.toscrape.com, and every shop with the same pages (our sandbox): Page -> Listing, Page -> RawBook.

    - name: books_toscrape
      kind: books_toscrape
      address: ${BOOKCLUB_SHOP_URL}

The shop sends no charset, truncates titles on listings, and shows further books below the book ("recently viewed"). So
bytes are decoded as browsers do it, titles come from the book's own page, and every selector is restricted to its part
of the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from bs4 import BeautifulSoup, Tag
from bs4.builder._lxml import LXMLTreeBuilder
from bs4.filter import SoupStrainer

from bookclub_platform.core.book import Category, RawBook
from bookclub_platform.core.errors import PageRejected
from bookclub_platform.core.settings import Settings
from bookclub_platform.sources._charset import decode, header
from bookclub_platform.sources._config import OurCategory, SourceConfig, ours
from bookclub_platform.sources._contract import CHECK_ADDRESS, CrawlFetcher, Listing, Page, PageFetcher
from bookclub_platform.sources._links import joined, joined_if_valid
from bookclub_platform.sources._numbers import count_in
from bookclub_platform.sources._web import Web

_CATEGORY_LINK = re.compile(r"/category/books/([a-z0-9-]{1,100})_([0-9]{1,18})/")  # the slug names a folder
MOST_CATEGORIES = 1_000  # each becomes a partition for good
# A comment without end reaches to the end of the page, as in browsers; to look for the end of each takes hours.
_NO_CONTENT = re.compile(r"<!--.*?(?:-->|\Z)|<i [^<>]*></i>\s*", re.DOTALL)
_OTHER_BOOKS = "<h2>Products you recently viewed</h2>"
_HEAD_BYTES = 2000


class Config(SourceConfig):
    """Nothing but what every source has."""

    has_categories = True

    kind: Literal["books_toscrape"]


def build(config: Config, settings: Settings) -> BooksToScrape:
    return BooksToScrape(config.address, config.name, config.categories, Web.of(config, settings))


class _Only(SoupStrainer):
    """Builds only the elements for which `is_wanted(name, attributes)` holds, with all their content (with `_own_part`:
    252 -> 800 pages/s)."""

    def __init__(self, is_wanted: Callable[[str, dict[str, Any]], bool]) -> None:
        super().__init__()
        self.is_wanted = is_wanted

    def allow_tag_creation(self, nsprefix: str | None, name: str, attrs: Any) -> bool:
        return self.is_wanted(name, attrs or {})

    def allow_string_creation(self, string: str) -> bool:
        return False


class _LeanBuilder(LXMLTreeBuilder):
    """Skips what `_Only` leaves out before BeautifulSoup processes it: the same tree in less time (a book page 0.67 ->
    0.58 ms, a listing 2.1 -> 0.9)."""

    soup: Any
    """Set by BeautifulSoup before it feeds."""

    def start(self, tag: Any, attrib: Any, *nsmap: Any) -> None:
        if self._is_inside() or self.soup.parse_only.allow_tag_creation(None, tag, attrib):
            super().start(tag, attrib, *nsmap)

    def end(self, tag: str | bytes) -> None:
        if self._is_inside():
            super().end(tag)

    def data(self, data: str | bytes) -> None:
        if self._is_inside():
            super().data(data)

    def _is_inside(self) -> bool:
        """Whether a wanted element is open; the first one on the stack is the soup itself."""
        return len(self.soup.tagStack) > 1


def _is_of_listing(name: str, attrs: dict[str, Any]) -> bool:
    return name == "h3" or attrs.get("class") in {"form-horizontal", "pager"}


def _is_of_book(name: str, attrs: dict[str, Any]) -> bool:
    if name == "div":
        return attrs.get("id") in {"product_gallery", "product_description"} or "product_main" in attrs.get("class", "")
    return name in {"th", "td"} or (name == "p" and not attrs)


def _is_of_sidebar(name: str, attrs: dict[str, Any]) -> bool:
    return attrs.get("class") == "side_categories"


_LISTING, _BOOK, _SIDEBAR = _Only(_is_of_listing), _Only(_is_of_book), _Only(_is_of_sidebar)


class BooksToScrape:
    """A shop with the pages of books.toscrape.com at `address`."""

    has_categories = True

    def __init__(
        self,
        address: str,
        name: str = "books_toscrape",
        mapping: Mapping[str, OurCategory] | None = None,
        web: Web | None = None,
    ) -> None:
        self.address, self.name, self.mapping, self.web = address.rstrip("/"), name, mapping or {}, web or Web()

    def fetcher(self) -> AbstractContextManager[CrawlFetcher]:
        return self.web.open()

    def cover_fetcher(self) -> AbstractContextManager[PageFetcher]:
        return self.web.open()

    def categories(self, fetcher: PageFetcher) -> list[Category]:
        """The sidebar's categories without their parent "Books", which contains all books again."""
        page = fetcher.fetch(f"{self.address}/", "listing")
        found: dict[str, Category] = {}
        for link in _soup(_text(page), _SIDEBAR).select("a[href]"):
            url = joined_if_valid(page, str(link["href"]))
            if url and (match := _CATEGORY_LINK.search(url)):
                slug, number = match.groups()
                name = " ".join(link.get_text().split()) or slug
                if self.mapping:
                    slug, name = self._ours(slug, name)
                # Two categories must never share a partition, whatever the shop calls them.
                key = slug if slug not in found else f"{slug}-{number}"
                found[key] = Category(key, name, url)
        if len(found) > MOST_CATEGORIES:
            most = f"at most {MOST_CATEGORIES:,} are accepted, since each becomes a partition. {CHECK_ADDRESS}"
            raise PageRejected(page.url, f"lists {len(found):,} categories; {most}")
        if not found:
            raise PageRejected(page.url, f"is not the home page of such a shop: no categories in it. {CHECK_ADDRESS}")
        return list(found.values())

    def listing(self, page: Page) -> Listing:
        soup = _soup(_from_element("form", _text(page)), _LISTING)
        count = soup.select_one("form.form-horizontal strong")
        links = [joined(page, str(link["href"])) for link in soup.select("h3 > a[href]")]
        if count is None and not links:
            raise PageRejected(page.url, "is no listing page: neither books nor their number in it")
        following = soup.select_one("li.next > a[href]")
        return Listing(
            book_urls=tuple(dict.fromkeys(links)),
            next_url=joined(page, str(following["href"])) if following else None,
            expected=count_in(_found(count)),
        )

    def _ours(self, slug: str, name: str) -> tuple[str, str]:
        """Our category, looked up by the shop's name or slug; the shop's own if the mapping has neither."""
        for known in (name, slug):
            if known.casefold() in self.mapping:
                return ours(self.mapping, known) or (slug, name)
        return slug, name

    def rows(self, page: Page, category: Category) -> list[RawBook]:
        return [self._book(page, category)] if page.kind == "book" else []

    def _book(self, page: Page, category: Category) -> RawBook:
        soup = _soup(_own_part(_text(page)), _BOOK)
        parts = _first_of_each(soup)
        if ".product_main" not in parts:
            raise PageRejected(page.url, "is no book page: no .product_main in it")
        main, table = _first_of_each(parts[".product_main"]), _table(soup)
        about, gallery = parts.get("#product_description"), parts.get("#product_gallery")
        image = gallery.find("img", src=True) if gallery else None
        return RawBook(
            source=self.name,
            url=page.url,
            category=category.slug,
            category_name=category.name,
            upc=_found(table.get("UPC")),
            title=_found(main.get("h1")),
            price=_found(main.get(".price_color")),
            rating=_rating(main.get(".star-rating")),
            availability=_found(main.get(".availability")),
            description=_found(about.find_next_sibling("p") if about else None),
            num_reviews=_found(table.get("Number of reviews")),
            image_url=joined_if_valid(page, str(image["src"])) if image else None,
            seen_at=page.fetched_at,
        )


def _text(page: Page) -> str:
    text = decode(page.body, header(page.headers, "content-type"))
    if "</html>" not in text[-_HEAD_BYTES:]:
        raise PageRejected(page.url, f"is cut short: no </html> at its end, after {len(page.body)} bytes")
    return text


def _own_part(text: str) -> str:
    """The page from the book on, without the other books below it, which are half of its elements, and without comments
    and the icons that the style sheet draws (0.75 -> 0.64 ms per page)."""
    return _NO_CONTENT.sub("", _from_element("article", text).partition(_OTHER_BOOKS)[0])


def _from_element(name: str, text: str) -> str:
    """The text from the first such element on, without what precedes it (the sidebar is a third of a listing); all of
    it if there is no such element."""
    return text[max(0, text.find(f"<{name}")) :]


def _soup(text: str, only: _Only) -> BeautifulSoup:
    return BeautifulSoup(text, builder=_LeanBuilder, parse_only=only)


def _first_of_each(part: Tag) -> dict[str, Tag]:
    """ "h1", ".price_color", "#product_gallery" -> the first such element inside `part`. One walk instead of one per
    `find` (1.4 -> 0.8 ms per page, together with building the cells without their table)."""
    found: dict[str, Tag] = {}
    for tag in part.descendants:
        if isinstance(tag, Tag):
            names = [f".{name}" for name in tag.get_attribute_list("class")]
            if tag.has_attr("id"):
                names.append(f"#{tag['id']}")
            for name in (tag.name, *names):
                found.setdefault(name, tag)
    return found


def _table(soup: Tag) -> dict[str, Tag]:
    """Heading -> cell."""
    found: dict[str, Tag] = {}
    heading = ""
    for cell in soup.children:
        if isinstance(cell, Tag) and cell.name == "th":
            heading = cell.get_text().strip()
        elif isinstance(cell, Tag) and cell.name == "td":
            found.setdefault(heading, cell)
    return found


def _found(element: Tag | None) -> str | None:
    return element.get_text() if element is not None else None


def _rating(element: Tag | None) -> str | None:
    """ "Three" of `class="star-rating Three"`."""
    words = [word for word in element.get_attribute_list("class") if word != "star-rating"] if element else []
    return str(words[0]) if words else None
