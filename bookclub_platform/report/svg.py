"""Figures -> small pictures: SVG text of one to a few kilobytes, drawn in microseconds, with labelled axes.

    bars(["1", "2"], [4, 7], "stars", "books")        -> "<svg ..."
    data_uri(picture)                                 -> "data:image/svg+xml;base64,..." for <img> and Markdown

Why not matplotlib: a picture of four panels took it 0.2 s, ten seconds of a crawl of fifty categories. Written short, a
plain bar plot stays below the 1,000 characters up to which Dagster shows a picture without a click.
Every text is escaped: category names come from the shop.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from statistics import median

INK, BLUE, PALE = "#333", "#37b", "#bcd"
SIDES = (BLUE, "#b9b2a6", "#4f9d69")
GROUPS = ("#37b", "#d98a29", "#4f9d69", "#c0392b", "#8e5bb5", "#8c6239", "#d65fa0", "#1fa3a3", "#9aa51f", "#22335f")
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 14, 30
_CHARACTER = 5.2  # mean width of a digit or small letter at the font size below, in pixels
_FONT = 9

Box = tuple[float, float, float, float, float]
"""Low whisker, lower quartile, median, upper quartile, high whisker."""
Point = tuple[float, float, str]
"""x, y, and what the pointer shows."""


@dataclass(slots=True)
class _Plot:
    """The area between the axes: where a value lies, and what has been drawn so far."""

    width: int
    height: int
    low: float
    high: float
    left: int = _LEFT
    parts: list[str] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=lambda: {"start": [], "middle": [], "end": []})

    def x(self, share: float) -> float:
        return self.left + share * (self.width - self.left - _RIGHT)

    def y(self, value: float) -> float:
        span = self.high - self.low or 1
        return _TOP + (self.high - value) / span * (self.height - _TOP - _BOTTOM)

    def path(self, steps: str, style: str) -> None:
        self.parts.append(f'<path d="{steps}" {style}/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle") -> None:
        self.texts[anchor].append(f'<text x="{_n(x)}" y="{_n(y)}">{_shown(text)}</text>')

    def finished(self, x_label: str, y_label: str, y_ticks: Sequence[float]) -> str:
        base, right = self.height - _BOTTOM, self.width - _RIGHT
        self.path(f"M{self.left} {_TOP}V{base}H{right}", f'fill="none" stroke="{INK}"')
        for tick in y_ticks:
            self.text(self.left - 3, self.y(tick) + 3, number(tick), "end")
        self.text((self.left + right) / 2, self.height - 4, x_label)
        if y_label:
            self.text(self.left + 2, 9, y_label, "start")
        texts = [f'<g text-anchor="{anchor}">{"".join(some)}</g>' for anchor, some in self.texts.items() if some]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width}" viewBox="0 0 {self.width} {self.height}" '
            f'font-family="sans-serif" font-size="{_FONT}">'
            f'<path fill="#fff" d="M0 0h{self.width}v{self.height}H0z"/>{"".join(self.parts + texts)}</svg>'
        )


def bars(
    labels: Sequence[str], values: Sequence[float], x_label: str, y_label: str, width: int = 300, height: int = 120
) -> str:
    """A bar for each label, from zero up."""
    plot = _Plot(width, height, 0, max([*values, 1]))
    step = 1 / max(1, len(values))
    base = _n(plot.y(0))
    columns = "".join(
        f"M{_n(plot.x(at * step) + 1)} {base}V{_n(plot.y(value))}H{_n(plot.x((at + 1) * step) - 1)}V{base}z"
        for at, value in enumerate(values)
    )
    plot.path(columns, f'fill="{BLUE}"')
    every = _every(labels, plot, step)
    for at, label in enumerate(labels):
        if at % every == 0:
            plot.text(plot.x((at + 0.5) * step), height - _BOTTOM + 11, label)
    return plot.finished(x_label, y_label, [0, plot.high])


def histogram(
    edges: Sequence[float], counts: Sequence[float], x_label: str, y_label: str, width: int = 300, height: int = 120
) -> str:
    """Counts between neighbouring `edges` (one more than counts, evenly spaced, rising)."""
    plot = _Plot(width, height, 0, max([*counts, 1]))
    low, span = edges[0], (edges[-1] - edges[0]) or 1
    outline = "".join(
        f"V{_n(plot.y(count))}H{_n(plot.x((edge - low) / span))}" for edge, count in zip(edges[1:], counts, strict=True)
    )
    plot.path(f"M{plot.left} {_n(plot.y(0))}{outline}V{_n(plot.y(0))}z", f'fill="{BLUE}"')
    for tick in ticks(low, edges[-1], 4):
        plot.text(plot.x((tick - low) / span), height - _BOTTOM + 11, number(tick))
    return plot.finished(x_label, y_label, [0, plot.high])


def rows(labels: Sequence[str], values: Sequence[float], x_label: str, width: int = 560) -> str:
    """A bar for each label from left to right, one below the other, with its value behind it."""
    longest = max((len(label) for label in labels), default=1)
    height = _TOP + _BOTTOM + 14 * max(1, len(values))
    plot = _Plot(width, height, 0, 1, left=min(230, 12 + round(longest * _CHARACTER)))
    most = max([*values, 1]) * 1.1  # room for the value behind the longest bar
    steps = ""
    for at, (label, value) in enumerate(zip(labels, values, strict=True)):
        top = _TOP + 14 * at
        steps += f"M{plot.left} {top + 2}H{_n(plot.x(value / most))}v10H{plot.left}z"
        plot.text(plot.left - 4, top + 10, shortened(label, 42), "end")
        plot.text(plot.x(value / most) + 3, top + 10, number(value), "start")
    plot.path(steps, f'fill="{BLUE}"')
    return plot.finished(x_label, "", [])


def pairs(labels: Sequence[str], sides: Mapping[str, Sequence[float]], x_label: str, width: int = 560) -> str:
    """A thin bar of each side below each label, from left to right; the sides in the colours of `SIDES`."""
    longest = max((len(label) for label in labels), default=1)
    thick = 11
    step = thick * len(sides) + 5
    height = _TOP + 14 + _BOTTOM + step * max(1, len(labels))
    plot = _Plot(width, height, 0, 1, left=min(230, 12 + round(longest * _CHARACTER)))
    most = max([value for values in sides.values() for value in values] + [1e-9]) * 1.1
    legend: float = plot.left + 6
    for turn, (name, values) in enumerate(sides.items()):
        colour = SIDES[turn % len(SIDES)]
        steps = ""
        for at, value in enumerate(values):
            top = _TOP + 14 + step * at + thick * turn
            steps += f"M{plot.left} {top}H{_n(plot.x(value / most))}v{thick - 1}H{plot.left}z"
            plot.text(plot.x(value / most) + 3, top + 8, number(round(value, 3)), "start")
        plot.path(steps, f'fill="{colour}"')
        plot.parts.append(f'<text x="{_n(legend)}" y="{_TOP + 4}" fill="{colour}">■ {_shown(name)}</text>')
        legend += (len(name) + 4) * _CHARACTER
    for at, label in enumerate(labels):
        plot.text(plot.left - 4, _TOP + 14 + step * at + step / 2, shortened(label, 42), "end")
    return plot.finished(x_label, "", [])


def lines(sides: Mapping[str, Sequence[float]], x_label: str, y_label: str, width: int = 420, height: int = 190) -> str:
    """A line for each side over the same evenly spaced places, from zero up; the sides in the colours of `SIDES`."""
    plot = _Plot(width, height, 0, max([value for values in sides.values() for value in values] + [1e-9]))
    legend: float = width / 2
    for turn, (name, values) in enumerate(sides.items()):
        colour = SIDES[turn % len(SIDES)]
        last = max(1, len(values) - 1)
        steps = "L".join(f"{_n(plot.x(at / last))} {_n(plot.y(value))}" for at, value in enumerate(values))
        # Later ones below and wider: two that are the same are both seen.
        plot.parts.insert(0, f'<path d="M{steps}" fill="none" stroke="{colour}" stroke-width="{1.5 + 2.5 * turn}"/>')
        plot.parts.append(f'<text x="{_n(legend)}" y="{_TOP + 4}" fill="{colour}">■ {_shown(name)}</text>')
        legend += (len(name) + 4) * _CHARACTER
    return plot.finished(x_label, y_label, ticks(0, plot.high, 4))


def chart(groups: Mapping[str, tuple[str, Sequence[Point]]], width: int = 760, height: int = 620) -> str:
    """A map of points (x, y in 0..1, what the pointer shows), by colour; a group's name stands amid its own points. Of
    points for which nothing is shown a group is one path, a third of the length."""

    def at(x: float, y: float) -> tuple[str, str]:
        return _n(60 + x * (width - 120)), _n(12 + (1 - y) * (height - 24))  # names at the edges have room

    def circle(point: Point) -> str:
        x, y = at(point[0], point[1])
        return f'<circle cx="{x}" cy="{y}" r="3"><title>{_shown(point[2])}</title></circle>'

    def group(colour: str, points: Sequence[Point]) -> str:
        if any(point[2] for point in points):
            return f'<g fill="{colour}" fill-opacity=".75">{"".join(map(circle, points))}</g>'
        way = "".join("M{} {}h0".format(*at(x, y)) for x, y, _ in points)
        return f'<path d="{way}" stroke="{colour}" stroke-opacity=".75" stroke-width="6" stroke-linecap="round"/>'

    def name_of(name: str, points: Sequence[Point]) -> str:
        x, y = at(median(point[0] for point in points), median(point[1] for point in points))
        return f'<text x="{x}" y="{y}">{_shown(name)}</text>'

    dots = "".join(group(colour, points) for colour, points in groups.values() if points)
    names = "".join(name_of(name, points) for name, (_, points) in groups.items() if name and points)
    halo = 'text-anchor="middle" font-weight="bold" paint-order="stroke" stroke="#fff" stroke-width="3"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11"><path fill="#fff" d="M0 0h{width}v{height}H0z"/>'
        f"{dots}<g {halo}>{names}</g></svg>"
    )


def boxes(groups: Mapping[str, Box], x_label: str, y_label: str, width: int = 420, height: int = 190) -> str:
    """A box from quartile to quartile for each group, with its median and its whiskers."""
    plot = _Plot(width, height, 0, max([box[4] for box in groups.values()] + [1]))
    step = (plot.x(1) - plot.x(0)) / max(1, len(groups))
    for at, (label, box) in enumerate(groups.items()):
        middle, half = plot.x(0) + (at + 0.5) * step, min(30, step * 0.3)
        low, q1, median, q3, high = (_n(plot.y(value)) for value in box)
        left, right = _n(middle - half), _n(middle + half)
        plot.path(f"M{_n(middle)} {low}V{q1}M{_n(middle)} {q3}V{high}", f'stroke="{INK}"')
        plot.path(f"M{left} {q1}H{right}V{q3}H{left}z", f'fill="{PALE}" stroke="{INK}"')
        plot.path(f"M{left} {median}H{right}", f'stroke="{BLUE}" stroke-width="2"')
        plot.text(middle, height - _BOTTOM + 11, label)
    return plot.finished(x_label, y_label, ticks(0, plot.high, 4))


def band(
    labels: Sequence[str],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    x_label: str,
    y_label: str,
    width: int = 300,
    height: int = 120,
) -> str:
    """A line over evenly spaced moments, with the band between `low` and `high` behind it."""
    bottom, top = min(low, default=0), max(high, default=1)
    margin = (top - bottom) * 0.1 or abs(top) * 0.1 or 1
    plot = _Plot(width, height, max(0, bottom - margin), top + margin)
    step = 1 / max(1, len(labels))
    xs = [plot.x((at + 0.5) * step) for at in range(len(labels))]

    def line(values: Sequence[float], places: Sequence[float]) -> str:
        return "L".join(f"{_n(x)} {_n(plot.y(value))}" for x, value in zip(places, values, strict=True))

    if len(labels) > 1:
        plot.path(f"M{line(low, xs)}L{line(high[::-1], xs[::-1])}z", f'fill="{PALE}"')
        plot.path(f"M{line(middle, xs)}", f'fill="none" stroke="{BLUE}" stroke-width="2"')
    dots = "".join(f"M{_n(x - 2)} {_n(plot.y(value) - 2)}h4v4h-4z" for x, value in zip(xs, middle, strict=True))
    plot.path(dots, f'fill="{BLUE}"')
    every = _every(labels, plot, step)
    for at, label in enumerate(labels):
        if at % every == 0:
            plot.text(xs[at], height - _BOTTOM + 11, label)
    return plot.finished(x_label, y_label, ticks(plot.low, plot.high, 4))


def dots(
    groups: Mapping[str, tuple[str, Sequence[tuple[float, float]]]],
    x_label: str,
    y_label: str,
    width: int = 420,
    height: int = 140,
) -> str:
    """Points (x, y), both from zero up; `groups` has the colour and the points of each name of the legend."""
    points = [point for _, some in groups.values() for point in some]
    plot = _Plot(width, height, 0, max([y for _, y in points], default=0) or 1)
    furthest = max([x for x, _ in points], default=0) or 1
    legend: float = _LEFT + 6
    for name, (colour, some) in groups.items():
        if some:
            steps = "".join(f"M{_n(plot.x(x / furthest) - 1)} {_n(plot.y(y) - 1)}h2v2h-2z" for x, y in some)
            plot.path(steps, f'fill="{colour}"')
            plot.parts.append(f'<text x="{_n(legend)}" y="{_TOP + 4}" fill="{colour}">■ {_shown(name)}</text>')
            legend += (len(name) + 4) * _CHARACTER
    for tick in ticks(0, furthest, 5):
        plot.text(plot.x(tick / furthest), height - _BOTTOM + 11, number(tick))
    return plot.finished(x_label, y_label, ticks(0, plot.high, 3))


def data_uri(picture: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(picture.encode()).decode()


def ticks(low: float, high: float, about: int) -> list[float]:
    """About so many round numbers from `low` to `high`: 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * unit for unit in (1, 2, 5, 10) if power * unit >= rough * 0.99)
    first = math.ceil(low / step - 1e-9)
    return [round(at * step, 10) for at in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """1234567 -> "1,234,567", 0.25 -> "0.25"."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0").rstrip(".")


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _every(labels: Sequence[str], plot: _Plot, step: float) -> int:
    """Every which label has room beside its neighbours."""
    needed = (max((len(label) for label in labels), default=1) + 1) * _CHARACTER
    return max(1, math.ceil(needed / (step * (plot.x(1) - plot.x(0)))))


def _n(value: float) -> str:
    """A coordinate, no longer than it must be: to half a pixel."""
    return f"{round(2 * value) / 2:g}"


def _shown(text: str) -> str:
    """Escaped, and without characters that no XML may hold: one of them and the whole picture is gone."""
    return escape("".join(sign if sign.isprintable() else " " for sign in text), quote=False)
