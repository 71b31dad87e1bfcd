"""(number of books, seed) -> Catalogue: the facts of every book at once, each blurb only when it is asked for.

The same pair gives the same shop on every machine and Python version.
Alone: `python -m bookclub_platform.sandbox.catalogue` prints fifteen books.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from random import Random

from bookclub_platform.core.errors import ConfigurationError

from .blurbs import blurb, folded
from .book import Book, Series
from .draw import Cast, Draw, Person, pick
from .words import Genre, Mode, words

ENOUGH = 100  # from so many books on a shop has its fixed small categories and its two books without a description


@dataclass(frozen=True)
class Catalogue:
    """`books[n - 1]` has the number n; `members[i]` are the numbers in category i, highest first."""

    seed: int
    books: list[Book]
    members: dict[int, list[int]]
    by_author: dict[str, list[int]]
    without_description: frozenset[int]

    @property
    def genres(self) -> list[tuple[int, Genre]]:
        """The categories that hold a book, with their places in `words().genres`."""
        return [(at, genre) for at, genre in enumerate(words().genres) if at in self.members]

    def description(self, book: Book) -> str:
        """What stands below "Product Description", oddities included; empty for two books of a shop."""
        if book.number in self.without_description:
            return ""
        rng = Random(f"{self.seed}/blurb/{book.text}")
        return folded(rng, blurb(rng, book, partial(cast_of, self.seed, book), self.facts(rng, book)))

    def facts(self, rng: Random, book: Book) -> dict[str, str]:
        """The values that a blurb may name: the author, an earlier book, the series."""
        author = author_of(self.seed, book)
        she = author.sex == "f"
        known = {
            "author_full": author.full,
            "author_surname": author.surname,
            "ahe": "she" if she else "he",
            "ahis": "her" if she else "his",
        }
        others = [n for n in self.by_author[author_key(book)] if self.books[n - 1].title != book.title]
        if others:
            known["earlier"] = self.books[pick(rng, others) - 1].title.partition(" (")[0].partition(":")[0]
        if book.series:
            known |= {
                "series": book.series.name.removeprefix("The "),
                "volume": str(book.volume),
                "first_volume": book.series.first_title,
                "ordinal_volume": words().shared["ordinals"][book.volume - 1],
            }
        return known


def author_key(book: Book) -> str:
    return f"{book.theme}/{words().modes[book.mode].is_fact}/{book.author}"


def author_of(seed: int, book: Book) -> Person:
    """Authors keep to a theme, and to fact or to fiction."""
    return Person.drawn(Random(f"{seed}/author/{author_key(book)}"))


def cast_of(seed: int, book: Book) -> Cast:
    theme = words().themes[book.theme]
    rng = Random(f"{seed}/cast/{book.series.people if book.series else book.text}")
    return Cast.drawn(rng, theme, author_of(seed, book) if book.mode == "memoir" else None)


def generate(books: int = 1000, seed: int = 0) -> Catalogue:
    """A shop of `books` books. Raises ConfigurationError for a number below 1."""
    if books < 1:
        raise ConfigurationError(f"A shop needs at least one book, not {books}.")
    made = _Press(books, seed).books()
    rng = Random(f"{seed}/oddities")
    members: dict[int, list[int]] = defaultdict(list)
    for book in reversed(made):
        members[book.genre].append(book.number)
    _print_twice(rng, made, members)
    by_author: dict[str, list[int]] = defaultdict(list)
    for book in made:
        by_author[author_key(book)].append(book.number)
    missing: set[int] = set()
    while books >= ENOUGH and len(missing) < 2:
        missing.add(1 + int(rng.random() * books))
    return Catalogue(seed, made, dict(members), dict(by_author), frozenset(missing))


def _print_twice(rng: Random, books: list[Book], members: dict[int, list[int]]) -> None:
    """Give one book the title, the blurb and the author of another of its category, as a second edition has them."""
    roomy = [numbers for _, numbers in sorted(members.items()) if len(numbers) >= 3]
    if not roomy:
        return
    numbers = pick(rng, roomy)
    original, second = books[numbers[-1] - 1], books[numbers[0] - 1]
    books[second.number - 1] = replace(
        original, number=second.number, upc=second.upc, price_pence=second.price_pence,
        rating=second.rating, stock=second.stock,
    )  # fmt: skip


class _Press:
    """Draws the facts of all books from one stream of random numbers."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.rng = count, seed, Random(f"{seed}/facts")
        self.titles: set[str] = set()
        self.upcs: set[str] = set()
        self.running: dict[tuple[int, str], tuple[Series, int, int, int, str]] = {}
        self.authors = max(4, count // 300)

    def books(self) -> list[Book]:
        return [self.book(number, genre) for number, genre in enumerate(self.genres(), start=1)]

    def genres(self) -> list[int]:
        """The category of each book in turn: weights for most of them, a handful for a few, well shuffled."""
        genres, rng = words().genres, self.rng
        few = [at for at, genre in enumerate(genres) for _ in range(genre.few)] if self.count >= ENOUGH else []
        weight = sum(genre.share for genre in genres)
        rest = self.count - len(few)
        sizes = [rest * genre.share // weight for genre in genres]
        by_weight = sorted(range(len(genres)), key=lambda at: -genres[at].share)
        for at in by_weight[: rest - sum(sizes)]:
            sizes[at] += 1
        drawn = few + [at for at, size in enumerate(sizes) for _ in range(size)]
        keys = [rng.random() for _ in drawn]
        return [at for _, at in sorted(zip(keys, drawn, strict=True))]

    def book(self, number: int, genre: int) -> Book:
        rng, found = self.rng, words()
        kind = found.genres[genre]
        if not kind.modes:
            kind = pick(rng, [other for other in found.genres if other.modes and other.share])
        mode, theme = found.modes[pick(rng, kind.modes)], pick(rng, kind.themes)
        side = pick(rng, [name for name in found.themes if name != theme])
        author = int(rng.random() ** 1.6 * self.authors)  # some authors write much, most a little
        bare = Book(
            number=number, title="", genre=genre, mode=mode.name, theme=theme, side=side, author=author, series=None,
            volume=0, text=number, upc=self.upc(), price_pence=1000 + int(rng.random() * 5000),
            rating=1 + int(rng.random() * 5), stock=1 + int(rng.random() * 22),
        )  # fmt: skip
        if mode.series and rng.random() < 0.45:
            return self.volume(bare, mode)
        return replace(bare, title=self.title(bare, mode))

    def upc(self) -> str:
        while True:
            upc = "".join(f"{int(self.rng.random() * 2**32):08x}" for _ in range(2))
            if upc not in self.upcs:
                self.upcs.add(upc)
                return upc

    def volume(self, bare: Book, mode: Mode) -> Book:
        """The next volume of the series that runs in this category and theme, or the first of a new one."""
        place = (bare.genre, bare.theme)
        if place in self.running and self.running[place][4] == mode.name:
            series, volume, planned, author, _ = self.running.pop(place)
            volume += 1
        else:
            volume, planned, author = 1, 2 + int(self.rng.random() * 5), bare.author
            series = Series("", f"series {bare.number}", "")
            name = self.draw(replace(bare, series=series)).fill(pick(self.rng, mode.series))
            series = replace(series, name=name)
        book = replace(bare, series=series, volume=volume, author=author)
        title = self.title(book, mode, tail=f" ({series.name}, #{volume})")
        if volume == 1:
            series = replace(series, first_title=title.partition(" (")[0])
        if volume < planned:
            self.running[place] = (series, volume, planned, author, mode.name)
        return replace(book, title=title, series=series)

    def title(self, book: Book, mode: Mode, tail: str = "") -> str:
        """A title that no other book has; each failure allows a longer one."""
        rng, attempt = self.rng, 0
        while True:
            draw = self.draw(book)
            title = draw.fill(pick(rng, mode.titles))
            if attempt >= 12:
                title = f"{title}, or {draw.fill('The {ADJ4} {NOUN4}')}"
            if not tail and (attempt > 4 or rng.random() < 0.2) and not set(":?&") & set(title):
                title = f"{title}: {draw.fill(pick(rng, mode.subtitles))}"
            title = re.sub(r"(?:^|: )[a-z]", lambda found: found[0].upper(), title) + tail
            title = re.sub(r"\b([Aa]) (?=[AEIO]|U(?!ni))", r"\1n ", title)
            if rng.random() < 0.25:
                title = title.replace("'", "\u2019")
            if title not in self.titles:
                self.titles.add(title)
                return title
            attempt += 1

    def draw(self, book: Book) -> Draw:
        themes = words().themes
        return Draw(self.rng, themes[book.theme], themes[book.side], partial(cast_of, self.seed, book), {})


def main() -> None:
    shop = generate(seed=int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    rng = Random()
    for book in sorted((pick(rng, shop.books) for _ in range(15)), key=lambda book: book.genre):
        print(f"\n{book.title}   [{words().genres[book.genre].name}] {book.price}\n{shop.description(book)}")


if __name__ == "__main__":
    main()
