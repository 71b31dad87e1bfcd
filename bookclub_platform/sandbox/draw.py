"""(random numbers, theme, people) + a pattern with {slots} -> a sentence or a title.

    "{Hero} is {a_trade} {at}."  ->  "Ines Thorne is a beekeeper among the hives at Clover Hill."

A slot in lower case is put in as it is, Capitalised begins a sentence, UPPER is for titles; digits behind it only tell
two apart. Phrases of the theme are drawn without repetition; people, town and small words stay the same in one text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import TypeVar

from .words import Theme, words

T = TypeVar("T")

_PHRASES = {
    "noun": "nouns", "plural": "plurals", "topic": "topics", "thing": "things", "event": "events", "want": "wants",
    "secret": "secrets", "lore": "lore", "detail": "details", "how": "hows", "ask": "asks", "do": "dos",
}  # fmt: skip
_SMALL = {
    "season": "seasons", "month": "months", "number": "numbers", "relative": "relatives", "adj": "adjectives",
    "kin": "kin", "street": "streets", "hometown": "hometowns", "age": "ages", "ordinal": "ordinals",
}  # fmt: skip
_LOWER_IN_TITLES = frozenset(
    ("a", "an", "and", "as", "at", "but", "by", "for", "from", "in", "of", "on", "or", "the", "to", "with")
)
_PRONOUNS = {"f": ("she", "her", "her", "herself"), "m": ("he", "him", "his", "himself")}


def pick(rng: Random, options: Sequence[T]) -> T:
    """One of `options`; uses `random()` alone, the one method whose numbers Python promises never to change."""
    return options[int(rng.random() * len(options))]


def title_case(text: str) -> str:
    """`how a wick saved ships` -> `How a Wick Saved Ships`; a leading article stays low, as inside a title."""
    return " ".join(
        word if word in _LOWER_IN_TITLES else "-".join(sentence_case(part) for part in word.split("-"))
        for word in text.split(" ")
    )


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


@dataclass(frozen=True, slots=True)
class Person:
    first: str
    surname: str
    sex: str

    @classmethod
    def drawn(cls, rng: Random, sex: str = "") -> Person:
        sex = sex or ("f" if rng.random() < 0.55 else "m")
        names = words().names
        return cls(pick(rng, names["female" if sex == "f" else "male"]), pick(rng, names["surnames"]), sex)

    @property
    def full(self) -> str:
        return f"{self.first} {self.surname}"


@dataclass(frozen=True, slots=True)
class Cast:
    """Who a book is about, and where: the same in every volume of a series."""

    hero: Person
    trade: str
    other: Person
    other_trade: str
    town: str

    @classmethod
    def drawn(cls, rng: Random, theme: Theme, hero: Person | None = None) -> Cast:
        """`hero` is given where the author is the one whom the book is about; then only trades that fit are drawn."""
        opposite = {"f": "|m", "m": "|f"}[hero.sex] if hero else "|-"
        trade, _, sex = pick(rng, [t for t in theme["trades"] if not t.endswith(opposite)]).partition("|")
        hero = hero or Person.drawn(rng, sex)
        others = [t for t in theme["trades"] if t.partition("|")[0] != trade]
        other_trade, _, sex = pick(rng, others).partition("|")
        return cls(hero, trade, Person.drawn(rng, sex), other_trade, pick(rng, theme["towns"]))


class Draw(dict[str, str]):
    """Fills slots. `facts` are values known beforehand (author, series); the dict itself stays empty of phrases."""

    def __init__(self, rng: Random, theme: Theme, side: Theme, cast: Callable[[], Cast], facts: dict[str, str]) -> None:
        super().__init__(facts)
        self.rng, self.theme, self.side, self.draw_cast = rng, theme, side, cast
        self.used: set[str] = set()
        self.short_thing = ""

    @cached_property
    def cast(self) -> Cast:
        """Drawn when first asked for: most titles name nobody."""
        return self.draw_cast()

    def fill(self, pattern: str) -> str:
        return pattern.format_map(self)

    def __missing__(self, key: str) -> str:
        if key.isupper():
            return title_case(self.value(key.lower()))
        if key[0].isupper():
            return sentence_case(self.value(key[0].lower() + key[1:]))
        return self.value(key)

    def value(self, key: str) -> str:
        if key in self:
            return self[key]
        kind = key.rstrip("0123456789")
        if kind in _PHRASES:
            return self.phrase(self.theme[_PHRASES[kind]])
        if kind in _SMALL:
            options = words().names.get(_SMALL[kind]) or words().shared[_SMALL[kind]]
            self[key] = self.fresh(options)
            return self[key]
        special = getattr(self, f"slot_{kind}", None)
        if special is not None:
            return str(special())
        people = self.people()
        self.update(people)
        return people[key]

    def fresh(self, options: Sequence[str]) -> str:
        """One of `options` that this text has not used yet, while there is one."""
        unused = [option for option in options if option not in self.used] or options
        chosen = pick(self.rng, unused)
        self.used.add(chosen)
        return chosen

    def phrase(self, options: Sequence[str]) -> str:
        chosen = self.fresh(options)
        long, _, short = chosen.partition("|")
        if short:
            self.short_thing = short
        return long.format_map(self) if "{" in long else long

    def people(self) -> dict[str, str]:
        hero, other = self.cast.hero, self.cast.other
        he, him, his, himself = _PRONOUNS[hero.sex]
        o_he, o_him, o_his, _ = _PRONOUNS[other.sex]
        return {
            "first": hero.first, "surname": hero.surname, "he": he, "him": him, "his": his, "himself": himself,
            "trade": self.cast.trade, "a_trade": with_article(self.cast.trade),
            "ohe": o_he, "ohim": o_him, "ohis": o_his,
            "othertrade": self.cast.other_trade, "a_othertrade": with_article(self.cast.other_trade),
            "town": self.cast.town, "bare": self.cast.town.removeprefix("the "),
        }  # fmt: skip

    def has_named(self, key: str) -> bool:
        return f"{key} was named" in self.used

    def named(self, key: str, full: str, after: str) -> str:
        """The full name at the first mention, a part of it afterwards."""
        if self.has_named(key):
            return after
        self.used.add(f"{key} was named")
        return full

    def slot_hero(self) -> str:
        return self.named("hero", self.cast.hero.full, self.cast.hero.first)

    def slot_other(self) -> str:
        return self.named("other", self.cast.other.full, self.cast.other.first)

    slot_otherfirst = slot_other

    def slot_author(self) -> str:
        return self.named("author", self["author_full"], self["author_surname"])

    def slot_at(self) -> str:
        return self.fresh(self.theme["places"]).format(town=self.cast.town)

    def slot_the_thing(self) -> str:
        return self.short_thing or self.phrase(self.theme["things"])

    def slot_sidething(self) -> str:
        return self.fresh(self.side["things"]).partition("|")[0]

    def slot_sidelore(self) -> str:
        return self.fresh(self.side["lore"])

    def slot_plural_low(self) -> str:
        return self.phrase(self.theme["plurals"]).lower()

    def slot_topic_low(self) -> str:
        return self.phrase(self.theme["topics"]).lower()

    def slot_topicbare(self) -> str:
        return self.phrase(self.theme["topics"]).removeprefix("the ")

    def slot_vol(self) -> str:
        return str(1 + int(self.rng.random() * 12))

    def slot_issues(self) -> str:
        first = 1 + 6 * int(self.rng.random() * 6)
        return f"{first} to {first + 5}"


def with_article(noun: str) -> str:
    return ("an " if re.match("[aeio]|u(?!ni)", noun, re.IGNORECASE) else "a ") + noun
