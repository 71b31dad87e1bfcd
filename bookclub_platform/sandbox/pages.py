"""path -> Page (bytes and type), made when it is asked for; None for a path that the shop does not have.

""  catalogue/page-2.html  catalogue/category/books/verse_23/index.html  catalogue/<slug>_<n>/index.html
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import NamedTuple

from . import html_detail, html_frame, html_listing, html_pod
from .book import Book
from .catalogue import Catalogue
from .covers import cover

PER_PAGE = 20
VIEWED = 6
_SIDEBARS = 128  # fifty categories, "Books" and no category, at three depths, are asked for over and over

LISTING = re.compile(r"catalogue/page-([1-9]\d*)\.html")
CATEGORY = re.compile(r"catalogue/category/(books_1|books/([a-z-]+)_(\d+))/(?:index|page-([2-9]|[1-9]\d+))\.html")
DETAIL = re.compile(r"catalogue/([a-z0-9-]*)_([1-9]\d*)/index\.html")
_IMAGE = re.compile(r"media/cache/([0-9a-f]{2})/([0-9a-f]{2})/(\1\2[0-9a-f]{28})\.jpg")
_STATIC = re.compile(r"static/oscar/(?:css|js)/[a-z0-9/.-]+\.(css|js)")


class Page(NamedTuple):
    body: bytes
    media_type: str = "text/html"  # without a charset, as the real shop sends it


class Shop:
    """All pages of one catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.genres = dict(catalogue.genres)
        self.by_number = {genre.number: at for at, genre in self.genres.items()}
        self.all_numbers: Sequence[int] = range(len(catalogue.books), 0, -1)
        self.sidebar = lru_cache(maxsize=_SIDEBARS)(self._sidebar)

    @cached_property
    def page_count(self) -> int:
        """HTML pages: home, listings, the parent category, the categories, and one for each book."""
        listed = count_pages(len(self.all_numbers))
        categories = sum(count_pages(len(numbers)) for numbers in self.catalogue.members.values())
        return 1 + 2 * listed + categories + len(self.all_numbers)

    def page(self, path: str) -> Page | None:
        """`path` without its leading slash; a folder stands for its index.html."""
        path = path + "index.html" if not path or path.endswith("/") else path
        if path == "index.html":
            return _html(self.listing(1, "catalogue/", ""))
        if found := DETAIL.fullmatch(path):
            return self.detail(found[1], int(found[2]))
        if found := CATEGORY.fullmatch(path):
            return self.category(int(found[3] or 1), found[2] or "books", int(found[4] or 1))
        if found := LISTING.fullmatch(path):
            at = int(found[1])
            return _html(self.listing(at, "", "../")) if at <= count_pages(len(self.all_numbers)) else None
        if found := _IMAGE.fullmatch(path):
            return Page(cover(found[3]), "image/jpeg")
        if found := _STATIC.fullmatch(path):
            return _static(path, found[1])
        return None

    def listing(self, at: int, catalogue: str, root: str) -> str:
        """Page `at` of all products."""
        pages = count_pages(len(self.all_numbers))
        turn = html_listing.pager(
            at, pages,
            f"{catalogue}page-{at - 1}.html" if at > 1 else "",
            f"{catalogue}page-{at + 1}.html" if at < pages else "",
        )  # fmt: skip
        path = html_frame.crumbs([(f"{root}index.html", "Home")], "All products")
        return self.list_of("All products", path, self.all_numbers, at, catalogue, root, 0, turn)

    def category(self, number: int, slug: str, at: int) -> Page | None:
        """Page `at` of a category; number 1 is "Books", the parent of all."""
        if number == 1:
            name, numbers, catalogue = "Books", self.all_numbers, "../../"
        elif number in self.by_number and self.genres[self.by_number[number]].slug == slug:
            place = self.by_number[number]
            name, numbers, catalogue = self.genres[place].name, self.catalogue.members[place], "../../../"
        else:
            return None
        pages, root = count_pages(len(numbers)), catalogue + "../"
        if at > pages:
            return None
        before = "" if at == 1 else "index.html" if at == 2 else f"page-{at - 1}.html"
        turn = html_listing.pager(at, pages, before, f"page-{at + 1}.html" if at < pages else "")
        above = [(f"{root}index.html", "Home"), (f"{catalogue}category/books_1/index.html", "Books")]
        path = html_frame.crumbs(above[: 1 if number == 1 else 2], name)
        return _html(self.list_of(name, path, numbers, at, catalogue, root, number, turn))

    def list_of(
        self, name: str, path: str, numbers: Sequence[int], at: int, catalogue: str, root: str, current: int, turn: str
    ) -> str:
        first = (at - 1) * PER_PAGE
        shown = numbers[first : first + PER_PAGE]
        body = html_listing.listing(
            name, path, self.sidebar(catalogue, current),
            html_listing.count(len(numbers), first + 1, first + len(shown)),
            [html_pod.pod(self.book(number), catalogue, root) for number in shown], turn,
        )  # fmt: skip
        return html_frame.page(name, root, body)

    def detail(self, slug: str, number: int) -> Page | None:
        if number > len(self.all_numbers) or self.book(number).slug != slug:
            return None
        book = self.book(number)
        genre = self.genres[book.genre]
        path = html_frame.crumbs(
            [
                ("../../index.html", "Home"),
                ("../category/books_1/index.html", "Books"),
                (f"../{genre.folder}/index.html", genre.name),
            ],
            book.title,
        )
        description = self.catalogue.description(book)
        viewed = [html_pod.pod(other, "../", "../../") for other in self.viewed_before(number)]
        body = html_detail.detail(book, path, description, viewed)
        return _html(html_frame.page(book.title, "../../", body, f"\n    {description}\n"))

    def viewed_before(self, number: int) -> list[Book]:
        """What the visitor looked at before, who went through the listing from its top when the shop was saved."""
        last = min(number + VIEWED, len(self.all_numbers))
        return [self.book(other) for other in range(number + 1, last + 1)]

    def book(self, number: int) -> Book:
        return self.catalogue.books[number - 1]

    def _sidebar(self, catalogue: str, current: int) -> str:
        return html_listing.sidebar(
            f"{catalogue}category/books_1/index.html",
            [
                (f"{catalogue}{genre.folder}/index.html", genre.name, genre.number == current)
                for genre in self.genres.values()
            ],
        )


def count_pages(books: int) -> int:
    return -(-books // PER_PAGE)


def _html(text: str) -> Page:
    return Page(text.encode())


def _static(path: str, kind: str) -> Page:
    """The one style sheet; the other style sheets and scripts that pages name are there but empty."""
    if path.endswith("css/styles.css"):
        return Page(files(__package__).joinpath("static", "styles.css").read_bytes(), "text/css")
    return Page(b"", "text/css" if kind == "css" else "text/javascript")
