"""The challenger and the champion, judged -> plots of both, and the page on which a person can judge them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

from bookclub_platform.models import BookText, Decision, Judge, Judgement, ListHealth, Readers, Registry, Tfidf
from bookclub_platform.models._map import places
from bookclub_platform.models._samples import samples_page
from bookclub_platform.report import pictures
from bookclub_platform.report.model import overview

MOST_SHELVES = 20  # in the plot: nobody would read more
MOST_VERSIONS = 30
JUDGED_BY = "judged_by"  # the tag


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: the model, its judgement, and the health of its lists."""

    model: Tfidf
    judgement: Judgement
    health: ListHealth

    @property
    def figures(self) -> dict[str, float]:
        return {"score": self.judgement.score} | self.judgement.figures | self.health.figures


def drawn(sides: Mapping[str, Side], judge: Judge | Readers, past_scores: Mapping[str, float]) -> dict[str, str]:
    """Name -> SVG. `past_scores` are those of earlier versions by number, oldest first.

    A plot without a figure is left out: if each category has only one book, say, there may be nothing to judge.
    """
    shelves = {name: judge.by_shelf(side.judgement) for name, side in sides.items()}
    first = next(iter(shelves.values()))
    largest = sorted(first, key=lambda shelf: -first[shelf][1])[:MOST_SHELVES]
    figures = _finite({figure: [side.figures[figure] for side in sides.values()] for figure in _judged(sides)})
    of_shelf = _finite({shelf: [found[shelf][0] for found in shelves.values()] for shelf in largest})
    scores = dict(past_scores) | {"this": next(iter(sides.values())).judgement.score}
    words = "score, and the figures it is made of"
    pictured = {
        "scores": pictures.compared(figures, list(sides), words) if figures else "",
        "by_category": pictures.compared(of_shelf, list(sides), judge.by_category) if of_shelf else "",
        "exposure": pictures.exposure(
            {name: side.health.exposures.astype(float) for name, side in sides.items()},
            {name: side.health.lists for name, side in sides.items()},
        ),
        "scores_over_time": pictures.scores(scores) if any(map(math.isfinite, scores.values())) else "",
    }
    return {name: picture for name, picture in pictured.items() if picture}


def _finite(figures: Mapping[str, Sequence[float]]) -> dict[str, Sequence[float]]:
    """Those of which every side has a number."""
    return {name: values for name, values in figures.items() if all(map(math.isfinite, values))}


class CatalogueMap(NamedTuple):
    """The map of the books according to a model; without points if there is too little to draw.

    Attributes:
        points: (x, y, title, category name) of each book.
        unnamed: categories that are only placeholders.
    """

    title: str
    points: Sequence[tuple[float, float, str, str]]
    unnamed: Set[str]

    def drawn(self, has_titles: bool) -> str:
        """An SVG, with titles if people can point at a book."""
        return pictures.catalogue_map(self.points, self.unnamed, has_titles)


def mapped(model: Tfidf, rows: Sequence[BookText]) -> CatalogueMap:
    of_id = {row.id: row for row in rows}
    ids, xy = places(model)
    points = [
        (float(x), float(y), of_id[book].title, of_id[book].category_name)
        for book, (x, y) in zip(ids.tolist(), xy.tolist(), strict=True)
    ]
    title = "The catalogue as this model sees it: like books lie together"
    if len(ids) < len(rows):
        title += f"; {len(ids):,} of {len(rows):,} books"
    return CatalogueMap(title, points, {row.category_name for row in rows if row.category in model.unknown_categories})


def page(
    decision: Decision,
    sides: Mapping[str, Side],
    rows: Sequence[BookText],
    shown: Mapping[str, str],
    catalogue: CatalogueMap,
    kept: float,
) -> str:
    """The HTML of the page. `shown` is the result of `drawn`, `kept` the share of the champion's lists that stay."""
    figures = {name: dict(side.figures) for name, side in sides.items()}
    figures[next(iter(figures))]["stability"] = kept
    titles = {
        "scores": "Champion beside challenger: the longer bar is better",
        "by_category": "Champion beside challenger in the largest categories",
        "exposure": "How the places in all lists are shared out: steep on the left, few books get most of them",
        "scores_over_time": "Score of the versions so far that the same judged, each on the catalogue of its day",
    }
    drawings = {titles[name]: picture for name, picture in shown.items()}
    if catalogue.points:
        drawings[f"{catalogue.title} (point at one for its title)"] = catalogue.drawn(has_titles=True)
    return samples_page(
        {name: side.model for name, side in sides.items()},
        rows,
        above=overview(decision.reason, decision.is_promoted, figures, drawings),
    )


def past_scores(registry: Registry, name: str, judge: str) -> dict[str, float]:
    """Version -> score of the last thirty that `judge` judged, oldest first; other judges' scores do not compare."""
    # Versions without the tag were judged by an earlier release, by proxies.
    versions = [one for one in registry.versions(name) if one.tags.get(JUDGED_BY, Judge.name) == judge][:MOST_VERSIONS]
    found = {version.version: registry.figures(version).get("challenger_score") for version in reversed(versions)}
    return {number: score for number, score in found.items() if score is not None}


def _judged(sides: Mapping[str, Side]) -> list[str]:
    """The figures that every side has and the gate uses, the score first."""
    return [
        "score",
        *(
            name
            for name in next(iter(sides.values())).judgement.figures
            if all(name in s.figures for s in sides.values())
        ),
    ]
