"""Rows of the catalogue -> one HTML page that says what is in it: the exploration that a data scientist starts with.

    html = render(facts)         # facts: what core/explore.py's statements gave

The page stands alone: pictures and style are inside, no script, nothing is loaded from anywhere. What comes from the
shop is escaped, and the page forbids itself everything else (Content-Security-Policy), also when opened from a disk.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np

from bookclub_platform.core.columns import MEANINGS
from bookclub_platform.report import figures, pictures, svg
from bookclub_platform.report.figures import Numbers

if TYPE_CHECKING:
    from jinja2 import Template

Row = Mapping[str, Any]
CATEGORIES_DRAWN = 60
LATE = timedelta(hours=20)  # behind the newest crawl: the category was left out of last night's


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page is made of. Names of rows' fields are those of the statements in core/explore.py.

    Attributes:
        made_at: UTC; `data_version` is that of the snapshot that all was read from.
        currency: the commonest; prices are those in it, and `other_currencies` counts the books of each other one.
        price, rating, stock, characters: one entry per listed book.
        placeholders: slugs of categories that say nothing of their books.
        api_url: where a book's page is linked to.
    """

    made_at: datetime
    data_version: str
    api_url: str
    currency: str
    other_currencies: Mapping[str, int]
    overview: Row
    missing: Mapping[str, int]
    price: Numbers
    rating: Numbers
    stock: Numbers
    characters: Numbers
    categories: Sequence[Row]
    placeholders: Sequence[str]
    longest: Sequence[Row]
    shortest: Sequence[Row]
    same_titles: Sequence[Row]
    same_descriptions: Sequence[Row]
    price_days: Sequence[Row]
    price_moves: Sequence[Row]
    last_crawls: Sequence[Row]
    rejects: Sequence[Row]
    newest_rejects: Sequence[Row]

    @property
    def described(self) -> Numbers:
        """Lengths of the descriptions that there are."""
        return np.where(self.characters > 0, self.characters, np.nan)

    @property
    def price_and_rating(self) -> figures.Association:
        return figures.association(self.price, self.rating, "price", "rating")


def drawn(facts: Facts) -> dict[str, str]:
    """The pictures by what they show; without history or rejects there is none of these."""
    found = {
        "prices": pictures.prices(facts.price, facts.currency, 30),
        "stars": pictures.stars(facts.rating),
        "stock": pictures.stock(facts.stock, 30),
        "description_lengths": pictures.lengths(facts.described),
        "price_by_stars": pictures.price_by_stars(facts.price, facts.rating, facts.currency),
        "books_per_category": pictures.category_sizes(
            {row["category_name"]: row["books"] for row in facts.categories[:CATEGORIES_DRAWN]}
        ),
    }
    if facts.price_days:
        found["price_history"] = pictures.price_history(facts.price_days, facts.currency)
    if facts.rejects:
        found["rejects_by_rule"] = pictures.rejects({row["rule"]: row["pages"] for row in facts.rejects})
    return found


def render(facts: Facts) -> str:
    """The page, UTF-8 text of some 100 kilobytes."""
    style = files(__name__).joinpath("style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    placeholders = [row for row in facts.categories if row["category"] in facts.placeholders]
    return _template().render(
        facts=facts,
        style=style,
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        pictures={name: svg.data_uri(picture) for name, picture in drawn(facts).items()},
        listed=facts.overview["listed"],
        meanings=MEANINGS,
        summaries={
            f"price in {facts.currency}": figures.summary(facts.price),
            "stars": figures.summary(facts.rating),
            "copies in stock": figures.summary(facts.stock),
            "characters of the description": figures.summary(facts.described),
        },
        association=facts.price_and_rating,
        placeholder_books=sum(row["books"] for row in placeholders),
        placeholder_names=[row["category_name"] for row in placeholders],
        drawn_categories=CATEGORIES_DRAWN,
        short_crawls=_short_crawls(facts.last_crawls),
    )


def _short_crawls(crawls: Sequence[Row]) -> list[Row]:
    """The last crawls that saw less than those before, refused pages, or are not of the night of the newest one."""
    newest = max((row["crawled_at"] for row in crawls), default=datetime.min)
    return [
        row
        for row in crawls
        if row["rejected"] or row["seen"] < (row["seen_before"] or 0) or newest - row["crawled_at"] > LATE
    ]


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__name__, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "–" if value is None else svg.number(round(float(value), 2))
    environment.filters["moment"] = lambda value: "–" if value is None else f"{value:%d %B %Y, %H:%M} UTC"
    environment.filters["share"] = lambda part, whole: f"{100 * part / whole:.1f} %" if whole else "–"
    # A shop decides what its links are, and not every scheme leads to a page.
    environment.tests["web_address"] = lambda url: str(url).startswith(("http://", "https://"))
    return environment.get_template("catalogue.html.j2")
