"""Table `books` -> fitted TF-IDF -> a version in the MLflow registry -> alias `champion`, if it passes its check."""

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from bookclub_platform.assets._columns import of_rows
from bookclub_platform.assets._common import DATA_SCIENCE, preview
from bookclub_platform.assets._plots import picture
from bookclub_platform.core.errors import ArtifactInvalid, ConfigurationError, NoChampion
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import load_settings
from bookclub_platform.core.tables import select_data_version, select_training_rows
from bookclub_platform.models import (
    BookText,
    Judge,
    Judgement,
    ListHealth,
    Model,
    ModelVersion,
    Recommendation,
    Registry,
    Tfidf,
    decide,
    list_health,
)
from bookclub_platform.models._samples import samples_page
from bookclub_platform.report import pictures
from bookclub_platform.resources import Api, BooksDatabase, MlflowRegistry

SAMPLES = "samples.html"
MOST_SHELVES = 20  # in the picture: more would not be read

_CHOSEN = Tfidf()


class TfidfConfig(dg.Config):
    """The parameters of models/tfidf.py, which says why the defaults were chosen.

    Attributes:
        embedding: `none`, `lsa` or `minilm`; unset, what the setting BOOKCLUB_EMBEDDING says.
    """

    title_weight: int = _CHOSEN.title_weight
    category_name_weight: int = _CHOSEN.category_name_weight
    category_weight: float = _CHOSEN.category_weight
    min_df: int = _CHOSEN.min_df
    unknown_categories: list[str] = Field(default=list(_CHOSEN.unknown_categories))
    embedding: str | None = Field(default=None, pattern="^(none|lsa|minilm)$")
    embedding_weight: float = Field(default=_CHOSEN.embedding_weight, ge=0, le=1)
    embedding_up_to: int = Field(default=_CHOSEN.embedding_up_to, ge=0)

    def parameters(self) -> dict[str, Any]:
        """What the model is made with."""
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
            description="No list holds its own book or one twice, nearly every book has a list, and no book stands in "
            "too many. Only a model that passes can become champion.",
        )
    ],
)
def tfidf_model(
    context: dg.AssetExecutionContext,
    config: TfidfConfig,
    database: BooksDatabase,
    registry: MlflowRegistry,
    api: Api,
    progress: dg.ResourceParam[Progress],
) -> dg.MaterializeResult:
    started = time.perf_counter()
    rows, data_version = _training_rows(database)
    if not rows:
        raise dg.Failure("Table books has no listed book: materialise books first.", allow_retries=False)
    try:
        model = Tfidf(**config.parameters()).fit(rows)
    except ConfigurationError as error:  # the embedding's extra is not installed: trying again would not help
        raise dg.Failure(str(error), allow_retries=False) from error
    fitted = time.perf_counter()
    health = list_health(model)
    opened = registry.open()
    champion = _champion(opened, context)
    judge = Judge(rows, config.unknown_categories)
    judged = judge.judge(model, health.faults())
    judged_champion = judge.judge(champion[1]) if champion else None
    decision = decide(judged, judged_champion)
    metrics = {
        **model.counts,
        **health.figures,
        **judged.figures,
        **decision.figures,
        **model.figures_,
        "fit_seconds": round(fitted - started, 3),
    }
    models = {"this model": model} | ({"the champion": champion[1]} if champion else {})
    version = opened.publish(
        model,
        parameters=model.parameters,
        metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
        tags={
            "data_version": data_version,
            "dagster_run_id": context.run_id,
            "dagster_run": registry.run_page(context.run_id),
            "decision": decision.reason,
            "judged_against": champion[0].version if champion else "",
        },
        artifact_root=registry.artifact_root,
        pages={SAMPLES: samples_page(models, rows)},
    )
    run_url = opened.run_url(version, registry.ui_url)
    context.log.info(f"Version {version.version}: {decision.reason}")
    if decision.is_promoted:
        opened.promote(version, decision.reason)
    progress.advance("train", f"version {version.version}")
    return dg.MaterializeResult(
        metadata=metrics
        | _compared(judge, judged, judged_champion)
        | {
            "dagster/row_count": len(rows),
            "data_version": data_version,
            "registered_version": version.version,
            "is_champion": decision.is_promoted,
            "decision": decision.reason,
            "judged_against": champion[0].version if champion else "no champion yet",
            "api": dg.MetadataValue.url(api.model),
            "mlflow_run": dg.MetadataValue.url(run_url),
            "sample_recommendations": dg.MetadataValue.url(f"{run_url}/artifacts/pages/{SAMPLES}"),
            "seconds": round(time.perf_counter() - started, 3),
            "preview": preview(_sample_lists(model, rows)),
        },
        check_results=[_check(health)],
    )


def _champion(registry: Registry, context: dg.AssetExecutionContext) -> tuple[ModelVersion, Tfidf] | None:
    """The champion to beat; None where there is none that this release can read."""
    try:
        version = registry.champion(Tfidf.name)
        with tempfile.TemporaryDirectory() as folder:
            return version, Tfidf.load(registry.download(version, Path(folder)))
    except NoChampion:
        return None
    except ArtifactInvalid as error:
        context.log.warning(f"The champion cannot be judged, and any sound model is better: {error}")
        return None


def _compared(judge: Judge, challenger: Judgement, champion: Judgement | None) -> dict[str, Any]:
    """Both models' figures, as a table and, category by category, as a picture."""
    sides = {"challenger": challenger} | ({"champion": champion} if champion else {})
    shelves = {name: judge.by_shelf(one) for name, one in sides.items()}
    largest = sorted(shelves["challenger"], key=lambda shelf: -shelves["challenger"][shelf][1])[:MOST_SHELVES]
    rows = [{"model": name, "score": one.score} | one.figures for name, one in sides.items()]
    bars = {shelf: [found[shelf][0] for found in shelves.values()] for shelf in largest}
    return {
        "compared": preview(rows),
        "agreement_by_category": picture(
            pictures.compared(bars, list(sides)), "books of the same category in a list, by category"
        ),
    }


def _training_rows(database: BooksDatabase) -> tuple[list[BookText], str]:
    with database.begin() as connection:
        # One snapshot for both reads, or the version could name rows that the model never saw.
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        version = connection.execute(select_data_version()).scalar_one()
        rows = [BookText(*row) for row in connection.execute(select_training_rows())]
    return rows, str(version)


def _check(health: ListHealth) -> dg.AssetCheckResult:
    faults = health.faults()
    return dg.AssetCheckResult(
        check_name="lists_are_sound",
        passed=not faults,
        metadata={
            "faults": faults,
            "coverage": health.coverage,
            "lists_with_their_own_book": health.with_itself,
            "lists_with_a_book_twice": health.with_doubles,
            "largest_exposure": health.largest_exposure,
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
