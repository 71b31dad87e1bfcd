"""Figures -> a small picture that the UI shows inside a materialisation."""

import base64
import io
from collections.abc import Sequence

import dagster as dg

# (seconds since the start, seconds until the answer was whole, status or 0) of each request, as CrawlReport has them
Timings = Sequence[tuple[float, float, int]]

_COLOURS = {0: "tab:red", 2: "tab:green", 3: "tab:blue", 4: "tab:orange", 5: "tab:red"}
_NAMES = {0: "no answer", 2: "2xx", 3: "3xx (unchanged)", 4: "4xx", 5: "5xx"}


def crawl_plot(timings: Timings) -> dg.MetadataValue:
    """Latency over the crawl, one point a request, coloured by its status."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 1.8), dpi=75, layout="constrained")
    axes = figure.subplots()
    for group, colour in _COLOURS.items():
        points = [(at_s, 1000 * latency_s) for at_s, latency_s, status in timings if status // 100 == group]
        if points:
            seconds, milliseconds = zip(*points, strict=True)
            axes.scatter(seconds, milliseconds, s=6, color=colour, label=_NAMES[group])
    axes.set_xlabel("seconds since the start")
    axes.set_ylabel("ms")
    if timings:
        axes.legend(fontsize=7)
    return _as_markdown(figure, "latency and status over the crawl")


def _as_markdown(figure: object, text: str) -> dg.MetadataValue:
    picture = io.BytesIO()
    figure.savefig(picture, format="png")  # type: ignore[attr-defined]
    return dg.MetadataValue.md(f"![{text}](data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()})")
