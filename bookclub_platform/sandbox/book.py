"""The facts of one made-up book, and what follows from them (slug, path, cover): cheap, 100,000 are held at once."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """`people` is the key from which the same cast is drawn for every volume."""

    name: str
    people: str
    first_title: str


@dataclass(frozen=True, slots=True)
class Book:
    """One book; `number` is the id in its URL (1..N), `genre` the category's place in the list.

    `text` is the number from which the blurb is drawn: a second edition under the same title shares it.
    """

    number: int
    title: str
    genre: int
    mode: str
    theme: str
    side: str
    author: int
    series: Series | None
    volume: int
    text: int
    upc: str
    price_pence: int
    rating: int
    stock: int

    @property
    def slug(self) -> str:
        return slugified(self.title)

    @property
    def path(self) -> str:
        """Relative to `catalogue/`."""
        return f"{self.slug}_{self.number}/index.html"

    @property
    def price(self) -> str:
        return f"£{self.price_pence / 100:.2f}"

    @property
    def cover(self) -> str:
        return image_path(f"cover {self.upc}")

    @property
    def thumbnail(self) -> str:
        return image_path(f"thumbnail {self.upc}")


def slugified(title: str) -> str:
    """`The Café at Hallsay's End` -> `the-cafe-at-hallsays-end`; ASCII only."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def image_path(key: str) -> str:
    name = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"media/cache/{name[:2]}/{name[2:4]}/{name}.jpg"
