"""A decision between two models, their figures and pictures -> the upper part of the model's page, as HTML.

    overview(decision, is_promoted, {"challenger": {...}, "champion": {...}}, {"a map": "<svg ..."}) -> "<h1>..."

models/_samples.py makes the page of it. All text is escaped but the pictures', which svg.py has escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

MEANINGS = {
    "score": "what the gate compares: the geometric mean of the figures below it that judge",
    "proxy_names": "finds books that share a rare name or series, with the name struck out (nDCG@10)",
    "proxy_shelf": "finds books of the same category, told no category",
    "proxy_agreement": "lists books of the same category",
    "readers_ndcg": "finds the books that the readers of a book like too (nDCG@10)",
    "across_ndcg": "the same, without the books of its own category",
    "coverage": "books that have a list at all",
    "filled": "places in the lists that hold a book",
    "reached": "books that stand in some list, other editions counted with the first",
    "largest_exposure": "share of the lists that hold the most recommended book: less is better",
    "list_ms": "the processor's milliseconds for a list, median: less is better",
    "megabytes": "size of the model",
    "stability": "of the champion's lists, what this model keeps",
}


def overview(
    decision: str,
    is_promoted: bool,
    sides: Mapping[str, Mapping[str, float]],
    pictures: Mapping[str, str],
) -> str:
    """The decision, the table of the figures of each side, and the pictures, each below what it shows."""
    verdict = "Promoted" if is_promoted else "Not promoted"
    shown = "".join(
        f"<figure><figcaption>{escape(text)}</figcaption>{picture}</figure>" for text, picture in pictures.items()
    )
    return (
        f'<h1>{verdict}</h1><p class="{"yes" if is_promoted else "no"}">{escape(decision)}</p>'
        f'{_table(sides)}<div class="pictures">{shown}</div>'
    )


def _table(sides: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in sides)
    rows = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(_cell(figures.get(name)) for figures in sides.values())}"
        f'<td class="quiet">{escape(meaning)}</td></tr>'
        for name, meaning in MEANINGS.items()
        if any(name in figures for figures in sides.values())
    )
    return f"<table><tr><th></th>{head}<th></th></tr>{rows}</table>"


def _cell(value: float | None) -> str:
    return f"<td>{'–' if value is None or value != value else f'{value:.4f}'.rstrip('0').rstrip('.')}</td>"
