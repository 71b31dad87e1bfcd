"""Table `books` -> fitted TF-IDF -> a version in the MLflow registry -> alias `champion`, if it passes its check."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import dagster as dg
from pydantic import Field

from bookclub_platform.assets._columns import of_rows
from bookclub_platform.assets._common import DATA_SCIENCE, preview
from bookclub_platform.assets._fit import fitted
from bookclub_platform.assets._model_page import JUDGED_BY, CatalogueMap, Side, drawn, mapped, page, past_scores
from bookclub_platform.assets._plots import picture
from bookclub_platform.core.errors import ArtifactInvalid, ConfigurationError, NoChampion
from bookclub_platform.core.feedback import select_steps
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import load_settings
from bookclub_platform.models import (
    BookText,
    Decision,
    Judge,
    Model,
    ModelVersion,
    Readers,
    Recommendation,
    Registry,
    Step,
    Tfidf,
    decide,
    list_health,
)
from bookclub_platform.models._health import stability
from bookclub_platform.models._parameters import Books, CategoryWeight, Embedding, FewestBooks, Share, WordWeight
from bookclub_platform.models._registry import hold
from bookclub_platform.resources import Api, BooksDatabase, MlflowRegistry

PAGE = "model.html"
CHALLENGER, CHAMPION = "challenger", "champion"

_CHOSEN = Tfidf()


class TfidfConfig(dg.Config):
    """The parameters of models/tfidf.py, which says why the defaults were chosen.

    Attributes:
        embedding: `none`, `lsa` or `minilm`; unset, what the setting BOOKCLUB_EMBEDDING says.
    """

    title_weight: WordWeight = _CHOSEN.title_weight
    category_name_weight: WordWeight = _CHOSEN.category_name_weight
    category_weight: CategoryWeight = _CHOSEN.category_weight
    min_df: FewestBooks = _CHOSEN.min_df
    unknown_categories: list[str] = Field(default=list(_CHOSEN.unknown_categories))
    embedding: str | None = Field(default=None, pattern=f"^({'|'.join(get_args(Embedding))})$")
    embedding_weight: Share = _CHOSEN.embedding_weight
    embedding_up_to: Books = _CHOSEN.embedding_up_to

    def parameters(self) -> dict[str, Any]:
        """The constructor arguments for the model."""
        return self.model_dump() | {"embedding": self.embedding or load_settings().embedding}


@dg.asset(
    name="tfidf_model",
    description="TF-IDF over title, description and category of every listed book, as a version in the model registry. "
    "It becomes champion only if it is better than the champion by more than chance, and its lists are sound.",
    deps=["books"],
    group_name="models",
    owners=[DATA_SCIENCE],
    kinds={"python", "scikitlearn", "mlflow"},
    code_version="2",
    metadata=of_rows(Recommendation, why="list of terms and category"),
    check_specs=[
        dg.AssetCheckSpec(
            "lists_are_sound",
            asset="tfidf_model",
            blocking=True,
            description="No list holds its own book or a work twice, nearly every book has a list and stands in one, "
            "no book stands in too many, and the model is not much larger or slower than the champion. Only a model "
            "that passes can become champion.",
        )
    ],
)
def tfidf_model(
    context: dg.AssetExecutionContext,
    config: TfidfConfig,
    database: BooksDatabase,
    registry: MlflowRegistry,
    api: Api,
    pipes: dg.PipesSubprocessClient,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    started = time.perf_counter()
    model, rows, data_version, spark_facts = fitted(context, Tfidf(**config.parameters()), database, pipes)
    fit_seconds = round(time.perf_counter() - started, 3)
    opened = registry.open()
    standing = _standing(opened)
    champion = _champion(opened, context)
    readers = Readers(rows, _steps(database), config.unknown_categories)
    judge = readers if readers.is_enough else Judge(rows, config.unknown_categories)
    sides = _judged(judge, {CHALLENGER: model} | ({CHAMPION: champion[1]} if champion else {}), rows)
    health = sides[CHALLENGER].health
    decision = _decision(sides, judge, hold(champion[0]) if champion else None)
    decision = _unless_changed(decision, opened, standing)
    kept = stability(model, champion[1]) if champion else math.nan
    shown, catalogue = drawn(sides, judge, past_scores(opened, model.name, judge.name)), mapped(model, rows)
    times = {"stability": kept, "fit_seconds": fit_seconds}
    judged = sides[CHALLENGER].judgement.figures | health.figures
    metrics = _finite(model.counts | judged | decision.figures | readers.counts | model.figures_ | times)
    version = opened.publish(
        model,
        parameters=model.parameters,
        metrics=metrics,
        tags={
            "data_version": data_version,
            "dagster_run_id": context.run_id,
            "dagster_run": registry.run_page(context.run_id),
            "decision": decision.reason,
            "judged_against": champion[0].version if champion else "",
            JUDGED_BY: judge.name,
        },
        artifact_root=registry.artifact_root,
        pages={PAGE: page(decision, sides, rows, shown, catalogue, kept)},
    )
    decision = _unless_changed(decision, opened, standing)
    context.log.info(f"Version {version.version}: {decision.reason}")
    if decision.is_promoted:
        opened.promote(version, decision.reason)
    progress.advance("train", f"version {version.version}")
    facts: dict[str, Any] = {
        "decision": decision.reason,
        "is_champion": decision.is_promoted,
        "registered_version": version.version,
        "judged_against": champion[0].version if champion else "no champion yet",
        JUDGED_BY: f"{judge.said} ({readers.shortage})",
        "data_version": data_version,
        "dagster/row_count": len(rows),
        "compared": preview([{"model": name} | _rounded(side.figures) for name, side in sides.items()]),
        "preview": preview(_sample_lists(model, rows)),
        "seconds": round(time.perf_counter() - started, 3),
    }
    links = _links(opened.run_url(version, registry.ui_url), api)
    return dg.MaterializeResult(
        metadata=links | facts | spark_facts | _plots(shown, catalogue) | _rounded(metrics),
        check_results=[_check(sides[CHALLENGER])],
    )


def _plots(shown: Mapping[str, str], catalogue: CatalogueMap) -> dict[str, dg.MetadataValue]:
    plots = {name: picture(drawing, name.replace("_", " ")) for name, drawing in shown.items()}
    if catalogue.points:
        plots["map"] = picture(catalogue.drawn(has_titles=False), catalogue.title)
    return plots


def _finite(figures: Mapping[str, float]) -> dict[str, float]:
    """The finite figures; MLflow accepts no others."""
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    """The figures rounded for people; MLflow has them in full."""
    return {name: round(value, 4) for name, value in figures.items()}


def _judged(judge: Judge | Readers, models: Mapping[str, Tfidf], rows: Sequence[BookText]) -> dict[str, Side]:
    """Each model judged on the same rows.

    Raises:
        dg.Failure: the champion cannot be, for the extra that it was trained with is not installed any more.
    """
    try:
        health = {name: list_health(model, rows) for name, model in models.items()}
        # The champion has passed its guardrails before: today's books must not make it fail them.
        faults = {CHALLENGER: health[CHALLENGER].faults(health.get(CHAMPION))}
        return {
            name: Side(model, judge.judge(model, faults.get(name, ())), health[name]) for name, model in models.items()
        }
    except ConfigurationError as error:  # the challenger was fitted before: what it needs is here
        raise dg.Failure(
            "The champion cannot be compared with the new model: the sentence embedding that it was trained with is "
            "not installed. Install it, .venv/bin/pip install -c constraints.txt -e '.[embedding]', or make a version "
            "that needs none the champion: `bookclub model list`, then `bookclub model promote`.",
            allow_retries=False,
        ) from error


def _decision(sides: Mapping[str, Side], judge: Judge | Readers, held: str | None) -> Decision:
    champion = sides[CHAMPION].judgement if CHAMPION in sides else None
    decision = decide(sides[CHALLENGER].judgement, champion, judge.min_gain)
    if decision.is_promoted and held:
        return replace(decision, is_promoted=False, reason=f"{decision.reason} {held}")
    return decision


def _links(run_url: str, api: Api) -> dict[str, dg.MetadataValue]:
    return {
        "model_page": dg.MetadataValue.url(f"{run_url}/artifacts/pages/{PAGE}"),
        "api": dg.MetadataValue.url(api.model),
        "mlflow_run": dg.MetadataValue.url(run_url),
    }


def _standing(registry: Registry) -> tuple[tuple[str, str], str | None] | None:
    """Which version is the champion, and why it is held; None if there is none."""
    try:
        version = registry.champion(Tfidf.name)
    except NoChampion:
        return None
    return version.key, hold(version)


def _unless_changed(decision: Decision, registry: Registry, before: object) -> Decision:
    """Not promoted if an operator has promoted or rolled back since `before`: they know why, and no judge does."""
    if not decision.is_promoted or _standing(registry) == before:
        return decision
    return replace(decision, is_promoted=False, reason=f"{decision.reason} But the champion was changed meanwhile.")


def _champion(registry: Registry, context: dg.AssetExecutionContext) -> tuple[ModelVersion, Tfidf] | None:
    """The champion to beat; None if there is none that this release can read."""
    try:
        version = registry.champion(Tfidf.name)
        with tempfile.TemporaryDirectory() as folder:
            return version, Tfidf.load(registry.download(version, Path(folder)))
    except NoChampion:
        return None
    except ArtifactInvalid as error:
        context.log.warning(f"The champion cannot be judged, and any sound model is better: {error}")
        return None


def _steps(database: BooksDatabase) -> list[Step]:
    with database.begin() as connection:
        return [Step(*row) for row in connection.execute(select_steps())]


def _check(side: Side) -> dg.AssetCheckResult:
    health, faults = side.health, list(side.judgement.faults)
    return dg.AssetCheckResult(
        check_name="lists_are_sound",
        passed=not faults,
        metadata=health.figures
        | {
            "faults": faults,
            "lists_with_their_own_book": health.with_itself,
            "lists_with_a_book_twice": health.with_doubles,
            "judged_lists": health.lists,
        },
    )


def _sample_lists(model: Model, rows: Sequence[BookText], books: int = 5, limit: int = 3) -> list[dict[str, Any]]:
    titles = {row.id: row.title for row in rows}
    step = max(1, len(rows) // books)
    return [
        {"book": row.title}
        | {str(at): titles[near.book_id] for at, near in enumerate(model.recommend(row.id, limit), 1)}
        for row in rows[::step]
    ]
