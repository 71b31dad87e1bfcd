"""(book, its people, known facts) -> the blurb of 60 to 200 words, and the shop's odd way of printing it.

Both take the random numbers from outside, so that a blurb can be made again whenever its page is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

from .book import Book
from .draw import Cast, Draw, pick
from .words import Mode, words

LEAD = 375  # characters that the shop repeats in front of the whole text
_RARE = ("\u00ad", "\ufeff", "\u2028")


def blurb(rng: Random, book: Book, cast: Callable[[], Cast], facts: dict[str, str]) -> str:
    """Plain text: paragraphs run together, in most books without a blank between them, as the shop has them."""
    themes, mode = words().themes, words().modes[book.mode]
    draw = Draw(rng, themes[book.theme], themes[book.side], cast, facts)
    wanted = 70 + int(rng.random() * 52)
    parts = [draw.fill(pick(rng, mode.open))]
    colour = words().shared["colour"]
    middles = sorted([*mode.middle, draw.fresh(colour)], key=lambda _: rng.random())
    middles.append(draw.fresh(colour))
    while middles and len(" ".join(parts).split()) < wanted:
        pattern = middles.pop()
        if not (draw.has_named("other") and "_othertrade" in pattern):  # nobody is introduced twice
            parts.append(draw.fill(pattern))
    parts.append(draw.fill(pick(rng, mode.close)))
    parts += [draw.fill(pattern) for pattern in _notes(rng, book, mode, facts)]
    tag = draw.fill(pick(rng, mode.tags)) if rng.random() < 0.3 else ""
    return _printed(rng, tag, parts)


def _notes(rng: Random, book: Book, mode: Mode, facts: dict[str, str]) -> list[str]:
    """Lines about series and author that stand below a blurb."""
    shared, notes = words().shared, []
    if book.series:
        notes.append(pick(rng, shared["series_first" if book.volume == 1 else "series_later"]))
    chance = rng.random()
    if chance < 0.22 and "earlier" in facts:
        notes.append(pick(rng, shared["author_of"]))
    elif chance < 0.45:
        notes.append(pick(rng, shared["author_fact" if mode.is_fact else "author"]))
    elif chance < 0.6:
        notes.append(pick(rng, shared["praise"]))
    return notes


def _printed(rng: Random, tag: str, parts: list[str]) -> str:
    is_glued = rng.random() < 0.62
    joint = "" if is_glued else " "
    text = parts[0]
    for part in parts[1:]:
        text += (joint if rng.random() < 0.5 else " ") + part
    if tag:
        text = tag + joint + text if is_glued or tag[-1] in ".?!" else f"{tag}. {text}"
    if rng.random() < 0.35:
        text = re.sub(r"(^|[\s(])'", "\\1\u2018", text).replace("'", "\u2019")
    if rng.random() < 0.12:
        text = text.replace(". ", ".\u00a0", 1)
    if rng.random() < 0.006:
        at = int(rng.random() * len(text))
        text = text[:at] + pick(rng, _RARE) + text[at:]
    return text


def folded(rng: Random, text: str) -> str:
    """`whole` -> `<lead, cut inside a word> <whole> ...more` for all but about six books in a hundred."""
    if rng.random() < 0.055 or len(text) < LEAD + 25:
        return text
    cut = LEAD - 5 + int(rng.random() * 8)
    while not (text[cut - 1].isalnum() and text[cut].isalnum()):
        cut += 1
    return f"{text[:cut]} {text} ...more"
