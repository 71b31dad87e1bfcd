"""words/*.toml -> themes, modes, genres and names, read once.

A theme says what books are about, a mode how a blurb and a title are made, a genre which of both stand in a category.
A further theme or mode is one more table in a file `themes_*.toml` or `modes_*.toml`.
Alone: `python -m bookclub_platform.sandbox.words` prints how much there is of each.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Theme = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Mode:
    """One way of writing: patterns with {slots} that `Draw` fills."""

    name: str
    is_fact: bool
    series: list[str]
    titles: list[str]
    subtitles: list[str]
    tags: list[str]
    open: list[str]
    middle: list[str]
    close: list[str]


@dataclass(frozen=True, slots=True)
class Genre:
    """One category; `number` as in its URL, `few` a fixed size or `share` a weight; without modes a catch-all."""

    number: int
    name: str
    modes: tuple[str, ...]
    themes: tuple[str, ...]
    share: int
    few: int

    @property
    def slug(self) -> str:
        return self.name.lower().replace(" ", "-")

    @property
    def folder(self) -> str:
        """Relative to `catalogue/`."""
        return f"category/books/{self.slug}_{self.number}"


@dataclass(frozen=True, slots=True)
class Words:
    themes: dict[str, Theme]
    modes: dict[str, Mode]
    genres: tuple[Genre, ...]
    names: Theme
    shared: Theme


@cache
def words() -> Words:
    """All word material of the package."""
    themes = _tables("themes_")
    modes = {name: Mode(name=name, **table) for name, table in _tables("modes_").items()}
    genres = tuple(
        Genre(
            number=number,
            name=row["name"],
            modes=tuple(row.get("modes", ())),
            themes=tuple(row.get("themes", themes)),
            share=row.get("share", 0),
            few=row.get("few", 0),
        )
        for number, row in enumerate(_read("genres.toml")["genre"], start=2)
    )
    return Words(themes, modes, genres, _read("names.toml"), _read("shared.toml"))


def _tables(prefix: str) -> dict[str, Any]:
    folder = files(__package__).joinpath("words")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(prefix))
    return {key: table for name in names for key, table in _read(name).items()}


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(files(__package__).joinpath("words", name).read_text(encoding="utf-8"))


if __name__ == "__main__":
    found = words()
    phrases = sum(len(values) for theme in found.themes.values() for values in theme.values())
    print(f"{len(found.themes)} themes with {phrases} phrases, {len(found.modes)} modes, {len(found.genres)} genres")
