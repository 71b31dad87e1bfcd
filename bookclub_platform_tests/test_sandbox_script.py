"""The sandbox shop in JavaScript: pages without a book in them, documents without markup, the same addresses."""

from __future__ import annotations

import json
import re

import pytest

from bookclub_platform.sandbox import generate
from bookclub_platform.sandbox.pages import Shop
from bookclub_platform.sandbox.script_shop import ScriptShop

CATALOGUE = generate(130, seed=4)
PLAIN, SCRIPT = Shop(CATALOGUE), ScriptShop(CATALOGUE)
BOOK = CATALOGUE.books[6]
GENRE = PLAIN.genres[BOOK.genre]


@pytest.mark.parametrize(
    "path",
    [
        "", "index.html", "catalogue/page-2.html", "catalogue/page-99.html", f"catalogue/{BOOK.path}",
        f"catalogue/{GENRE.folder}/index.html", f"catalogue/{GENRE.folder}/page-99.html",
        "catalogue/category/books_1/page-2.html", "catalogue/no-such_5/index.html",
        "catalogue/category/books/nothing_2/index.html", "nothing.html",
    ],
)  # fmt: skip
def test_it_has_the_pages_of_the_other_mode_and_all_are_the_same_empty_one(path: str) -> None:
    plain, script = PLAIN.page(path), SCRIPT.page(path)
    assert (plain is None) == (script is None) == (SCRIPT.page(f"data/{path}") is None)
    home = SCRIPT.page("")
    assert script is None or script == home
    assert home is not None and b"product" not in home.body and b"/static/shop.js" in home.body


def test_a_document_has_what_the_page_shows_and_no_markup() -> None:
    found = SCRIPT.page(f"data/catalogue/{BOOK.path}")
    assert found is not None and found.media_type == "application/json" and not re.search(rb"<[a-z]", found.body)
    book = json.loads(found.body)
    assert (book["title"], book["price"]) == (BOOK.title, BOOK.price) and ["UPC", BOOK.upc] in book["facts"]
    assert book["description"] == CATALOGUE.description(BOOK)


def test_the_documents_lead_through_every_page_of_a_listing() -> None:
    titles, path = list[str](), "catalogue/page-1.html"
    while path:
        found = SCRIPT.page(f"data/{path}")
        assert found is not None
        page = json.loads(found.body)
        titles += [book["title"] for book in page["books"]]
        path = (page["next"] or "").removeprefix("/")
    assert titles == [book.title for book in reversed(CATALOGUE.books)]
    assert SCRIPT.page(page["previous"].removeprefix("/")) is not None


def test_script_and_styles_are_served() -> None:
    script, styles = SCRIPT.page("static/shop.js"), SCRIPT.page("static/oscar/css/styles.css")
    assert script is not None and script.media_type == "text/javascript" and styles is not None and styles.body
