"""Numbers of some books, all or one category's -> the pictures that asset pages and the report have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from bookclub_platform.report import figures, svg
from bookclub_platform.report.figures import Numbers
from bookclub_platform.report.svg import PALE

STARS = (1, 2, 3, 4, 5)
_ON_PAGES = 15  # bins: so many keep the picture short enough to be shown without a click


def prices(values: Numbers, currency: str, bins: int = _ON_PAGES) -> str:
    edges, found = figures.histogram(values, bins)
    return svg.histogram(edges, found, f"price in {currency}", "books")


def stars(values: Numbers) -> str:
    found = figures.counts(values, STARS)
    return svg.bars([str(star) for star in found], list(found.values()), "stars", "books")


def stock(values: Numbers, bins: int = _ON_PAGES) -> str:
    edges, found = figures.histogram(values, bins, least_step=1)
    return svg.histogram(edges, found, "copies in stock", "books")


def price_history(days: Sequence[Mapping[str, Any]], currency: str) -> str:
    """`days` as core.explore.select_price_days gives them."""
    middle, low, high = ([float(day[name]) for day in days] for name in ("median", "low", "high"))
    labels = [f"{day['day']:%d %b}" for day in days]
    return svg.band(labels, middle, low, high, "day (UTC); line: median, band: middle half", currency)


def rejects(pages: Mapping[str, int]) -> str:
    """Refused pages by rule, the commonest first."""
    ordered = sorted(pages.items(), key=lambda item: -item[1])
    return svg.rows([rule for rule, _ in ordered], [count for _, count in ordered], "pages refused", width=420)


def lengths(characters: Numbers) -> str:
    """Of the descriptions that there are."""
    edges, found = figures.histogram(characters, 30, least_step=1)
    return svg.histogram(edges, found, "characters in the description", "books")


def price_by_stars(values: Numbers, ratings: Numbers, currency: str) -> str:
    return svg.boxes(figures.boxes(values, ratings), "stars (box: middle half, line: median)", f"price in {currency}")


def category_sizes(sizes: Mapping[str, int]) -> str:
    """Books by category, in the order given."""
    return svg.rows(list(sizes), list(sizes.values()), "listed books")


def compared(figures_of: Mapping[str, Sequence[float]], sides: Sequence[str], x_label: str) -> str:
    """A bar for each side below each label: `figures_of` is label -> one figure a side, 0..1."""
    columns = zip(*figures_of.values(), strict=True)
    return svg.pairs(list(figures_of), dict(zip(sides, map(list, columns), strict=True)), x_label)


def exposure(counts_of: Mapping[str, Numbers], lists_of: Mapping[str, int]) -> str:
    """Share of the lists that each book stands in, the most recommended on the left: `counts_of` is side -> (n,), most
    first. A steep left edge is a model that recommends the same to all, a long zero on the right one that forgets."""
    curves = {side: _thinned(100 * counts / max(1, lists_of[side])) for side, counts in counts_of.items()}
    return svg.lines(curves, "books, the most recommended first (all of the catalogue)", "% of the lists")


def scores(score_of: Mapping[str, float]) -> str:
    """Version -> its score, in the order given."""
    there = {version: score for version, score in score_of.items() if score == score}
    values = list(there.values())
    return svg.band(list(there), values, values, values, "version", "score", width=420, height=150)


def catalogue_map(
    places: Sequence[tuple[float, float, str, str]], without_name: Collection[str] = (), has_titles: bool = True
) -> str:
    """Books as points: (x, y, title, category name). The largest categories have a colour and a name, the others,
    and those of `without_name`, are grey. Without titles, for where nobody can point at a book, it is far shorter."""
    sizes = Counter(category for *_, category in places if category not in without_name)
    named = [category for category, _ in sizes.most_common(len(svg.GROUPS))]
    colours = {"": PALE} | dict(zip(named, svg.GROUPS, strict=False))
    groups = {
        name: (colour, [_place(place, has_titles) for place in places if place[3] == name])
        for name, colour in colours.items()
    }
    groups[""] = (PALE, [_place(place, has_titles) for place in places if place[3] not in named])
    return svg.chart(groups)


def _place(place: tuple[float, float, str, str], has_title: bool) -> tuple[float, float, str]:
    x, y, title, category = place
    return x, y, f"{title} ({category})" if has_title else ""


def _thinned(values: Numbers, most: int = 200) -> list[float]:
    """At most so many of them, evenly: a picture has no more pixels."""
    return [float(values[at]) for at in np.linspace(0, len(values) - 1, min(most, len(values)), dtype=int)]
