"""Models by name + the rows they were fitted on -> one HTML page for judging them at a glance.

    page = samples_page({"challenger": after, "champion": before}, rows, above="<h1>...")

The page is self-contained: no scripts, no images, no external resources. All text from the shop is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from textwrap import shorten

from bookclub_platform.models._contract import BookText, Model, Reason, Recommendation

_COLOURS = {"term": "#3b7dd8", "category": "#d98a29", "embedding": "#4f9d69", "terms": "#b9c3cf"}
_KINDS = {"term": "word", "category": "category", "embedding": "sense of the description", "terms": "other words"}
_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1d2733 }
section { border-top: 1px solid #d5dbe2; padding: 1rem 0 }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 0 } h3 { font-size: .85rem; margin: 0; color: #5b6876 }
.models { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1.5rem; margin-top: .7rem }
ol { margin: .3rem 0; padding-left: 1.4rem } li { margin-bottom: .5rem }
.quiet, .blurb { color: #5b6876; font-size: .85rem } .blurb { margin: .2rem 0 0 }
.bar { display: flex; height: .45rem; background: #eef1f4; margin: .15rem 0 } .bar span { height: 100% }
.models > div { max-width: 38rem }
table { border-collapse: collapse } td, th { padding: .15rem .8rem .15rem 0; text-align: left }
.yes, .no { border-left: .4rem solid #4f9d69; padding: .3rem .8rem; background: #eef6f0 }
.no { border-color: #d98a29; background: #fbf3e6 }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem 2rem } figure { margin: 1rem 0 } figure svg { max-width: 100% }
figcaption { font-size: .85rem; color: #5b6876; max-width: 34rem }
.new { background: #fff3c4 } .key span { padding: 0 .4rem; color: #fff; border-radius: .2rem; font-size: .8rem }
"""


def samples_page(
    models: Mapping[str, Model], rows: Sequence[BookText], books: int = 24, limit: int = 5, above: str = ""
) -> str:
    """The `limit` nearest of up to `books` books by each model, side by side, with scores and reasons.

    The books are spread over the categories; the same rows give the same books. A book that not every model lists is
    marked. `above` is HTML that comes first.
    """
    of_id = {row.id: row for row in rows}
    sections = "".join(_section(row, models, of_id, limit) for row in _spread(rows, books))
    key = " ".join(f'<span style="background:{colour}">{_KINDS[kind]}</span>' for kind, colour in _COLOURS.items())
    marked = " Marked: not in every model's list." if len(models) > 1 else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>The model, and what it recommends</title>'
        f"<style>{_STYLE}</style>{above}<h1>Sample recommendations</h1>"
        f'<p class="quiet">Of {len(rows):,} books. A bar is as long as the score (to 1), and made of what '
        f'the two share: <span class="key">{key}</span>.{marked}</p>{sections}</html>\n'
    )


def _spread(rows: Sequence[BookText], books: int) -> list[BookText]:
    """Up to `books` rows: the first of each category, then the second of each, and so on; the last round is spread
    evenly over the categories."""
    ordered = sorted(rows, key=lambda row: (row.category, row.id))
    chosen: list[BookText] = []
    shelves = [list(group) for _, group in groupby(ordered, lambda row: row.category)]
    for turn in range(max(map(len, shelves), default=0)):
        row_of = [shelf[turn] for shelf in shelves if len(shelf) > turn]
        room = min(books - len(chosen), len(row_of))
        chosen += [row_of[at * len(row_of) // room] for at in range(room)]
    return sorted(chosen, key=lambda row: (row.category, row.id))


def _section(row: BookText, models: Mapping[str, Model], of_id: Mapping[int, BookText], limit: int) -> str:
    lists = {name: _list(model, row.id, limit) for name, model in models.items()}
    everywhere = set.intersection(*({near.book_id for near in listed} for listed in lists.values()))
    columns = "".join(
        f"<div><h3>{escape(name)}</h3><ol>{''.join(_item(near, of_id, everywhere) for near in listed)}</ol></div>"
        if listed
        else f'<div><h3>{escape(name)}</h3><p class="quiet">nothing in common with any book, or unknown to it</p></div>'
        for name, listed in lists.items()
    )
    blurb = shorten(row.description or "no description", 240, placeholder=" …")
    return (
        f'<section><h2>{escape(row.title)} <span class="quiet">{escape(row.category_name)}</span></h2>'
        f'<p class="blurb">{escape(blurb)}</p><div class="models">{columns}</div></section>'
    )


def _list(model: Model, book_id: int, limit: int) -> list[Recommendation]:
    try:
        return model.recommend(book_id, limit)
    except KeyError:
        return []  # newer than that model


def _item(near: Recommendation, of_id: Mapping[int, BookText], everywhere: set[int]) -> str:
    row = of_id.get(near.book_id)
    title = f"{escape(row.title)} <span class=quiet>{escape(row.category_name)}</span>" if row else "a book that left"
    mark = "" if near.book_id in everywhere else ' class="new"'
    said = ", ".join(escape(reason.value) for reason in near.why)
    bar = "".join(_part(reason) for reason in near.why)
    return (
        f'<li><span{mark}>{title}</span> {near.score:.2f}<div class="bar">{bar}</div><span class="quiet">{said}</span>'
    )


def _part(reason: Reason) -> str:
    colour = _COLOURS.get(reason.kind, "#888")
    text = escape(f"{reason.value}: {reason.share:.3f}")
    return f'<span style="width:{100 * reason.share:.2f}%;background:{colour}" title="{text}"></span>'
