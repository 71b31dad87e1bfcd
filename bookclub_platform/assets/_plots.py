"""Figures -> a small plot for the UI, inside a materialisation."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from bookclub_platform.report import svg

# (seconds since the start, seconds until the response was complete, status or 0) of each request, as in CrawlReport
Timings = Sequence[tuple[float, float, int]]

_GROUPS = {
    0: ("no answer", "#c22"),
    2: ("2xx", "#2a7"),
    3: ("3xx (unchanged)", "#37b"),
    4: ("4xx", "#d80"),
    5: ("5xx", "#c22"),
}


def crawl_plot(timings: Timings) -> dg.MetadataValue:
    """Latency over the crawl, one point per request, coloured by its status."""
    groups = {
        name: (colour, [(at_s, 1000 * latency_s) for at_s, latency_s, status in timings if status // 100 == group])
        for group, (name, colour) in _GROUPS.items()
    }
    return picture(svg.dots(groups, "seconds since the start", "ms"), "latency and status over the crawl")


def picture(drawn: str, text: str) -> dg.MetadataValue:
    """An SVG as metadata; `text` says what it shows. The UI shows a small one at once, a larger one after a click."""
    return dg.MetadataValue.md(f"![{text}]({svg.data_uri(drawn)})")
