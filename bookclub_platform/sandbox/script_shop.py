"""The same shop for browsers alone: path -> an empty page with a script, and `data/<path>` -> what the script renders.

catalogue/lamp_7/index.html           the shell, the same for every page
data/catalogue/lamp_7/index.html      {"view": "book", "title": ..., ...}: no markup in it
static/shop.js                        makes the elements; links and pager work by clicks and history
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from .book import Book
from .catalogue import Catalogue
from .html_frame import SHOP, WARNING
from .html_pod import RATINGS, cut
from .pages import CATEGORY, DETAIL, LISTING, PER_PAGE, Page, Shop, count_pages

_SHELL = f"""<!DOCTYPE html>
<html lang="en-us">
    <head>
        <meta charset="utf-8">
        <title>{SHOP}</title>
        <link rel="stylesheet" href="/static/oscar/css/styles.css">
    </head>
    <body>
        <noscript>This shop needs JavaScript.</noscript>
        {WARNING}
        <div id="app"></div>
        <script src="/static/shop.js"></script>
    </body>
</html>
""".encode()
_DATA = "data/"


class ScriptShop(Shop):
    """All pages of one catalogue, rendered by the visitor's browser."""

    def __init__(self, catalogue: Catalogue) -> None:
        super().__init__(catalogue)
        self.categories = [(f"/catalogue/{genre.folder}/index.html", genre.name) for genre in self.genres.values()]

    def page(self, path: str) -> Page | None:
        if path == "static/shop.js":
            return Page(files(__package__).joinpath("static", "shop.js").read_bytes(), "text/javascript")
        if path.startswith(_DATA):
            document = self.document(path.removeprefix(_DATA))
            return Page(json.dumps(document).encode(), "application/json") if document is not None else None
        if not path or path.endswith("/") or path.endswith(".html"):
            return Page(_SHELL) if self.document(path) is not None else None
        return super().page(path)

    def document(self, path: str) -> dict[str, Any] | None:
        """What a page shows; None for a page that the shop does not have."""
        path = path + "index.html" if not path or path.endswith("/") else path
        if found := DETAIL.fullmatch(path):
            return self._book(found[1], int(found[2]))
        if path == "index.html" or (found := LISTING.fullmatch(path)):
            at = int(found[1]) if found else 1
            return self._list("All products", "/index.html", "/catalogue/", self.all_numbers, at)
        if found := CATEGORY.fullmatch(path):
            if found[2] is None:
                folder = "/catalogue/category/books_1/"
                return self._list("Books", f"{folder}index.html", folder, self.all_numbers, int(found[4] or 1))
            place = self.by_number.get(int(found[3]))
            if place is not None and self.genres[place].slug == found[2]:
                genre, numbers = self.genres[place], self.catalogue.members[place]
                folder = f"/catalogue/{genre.folder}/"
                return self._list(genre.name, f"{folder}index.html", folder, numbers, int(found[4] or 1))
        return None

    def _list(
        self, heading: str, first_page: str, folder: str, numbers: Sequence[int], at: int
    ) -> dict[str, Any] | None:
        pages, first = count_pages(len(numbers)), (at - 1) * PER_PAGE
        if at > pages:
            return None
        return {
            "view": "listing",
            "heading": heading,
            "categories": self.categories,
            "total": len(numbers),
            "page": at,
            "pages": pages,
            "previous": f"{folder}page-{at - 1}.html" if at > 2 else first_page if at == 2 else None,
            "next": f"{folder}page-{at + 1}.html" if at < pages else None,
            "books": [self._pod(self.book(number)) for number in numbers[first : first + PER_PAGE]],
        }

    def _pod(self, book: Book) -> dict[str, Any]:
        return {
            "href": f"/catalogue/{book.path}",
            "image": f"/{book.thumbnail}",
            "title": book.title,
            "label": cut(book.title),
            "price": book.price,
            "rating": RATINGS[book.rating],
        }

    def _book(self, slug: str, number: int) -> dict[str, Any] | None:
        if number > len(self.all_numbers) or self.book(number).slug != slug:
            return None
        book, genre = self.book(number), self.genres[self.book(number).genre]
        stock = f"In stock ({book.stock} available)"
        return {
            "view": "book",
            "title": book.title,
            "category": [f"/catalogue/{genre.folder}/index.html", genre.name],
            "image": f"/{book.cover}",
            "price": book.price,
            "rating": RATINGS[book.rating],
            "stock": stock,
            "description": self.catalogue.description(book),
            "facts": [["UPC", book.upc], ["Availability", stock], ["Number of reviews", "0"]],
            "viewed": [self._pod(other) for other in self.viewed_before(number)],
        }
