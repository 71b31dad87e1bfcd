"""Numbers of some books, all or one category's -> the pictures that asset pages and the report have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bookclub_platform.report import figures, svg
from bookclub_platform.report.figures import Numbers

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


def compared(figures_of: Mapping[str, Sequence[float]], sides: Sequence[str]) -> str:
    """A bar for each side below each label: `figures_of` is label -> one figure a side, 0..1."""
    labels = [f"{label}, {side}" for label in figures_of for side in sides]
    return svg.rows(labels, [value for values in figures_of.values() for value in values], "share of the list")
