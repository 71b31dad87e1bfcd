"""Table `books` -> fitted TF-IDF -> a version in the MLflow registry -> alias `champion`, if it passes its check."""

import time
from collections.abc import Sequence
from typing import Any

import dagster as dg
import sqlalchemy as sa
from pydantic import Field

from bookclub_platform.assets._common import DATA_SCIENCE, preview
from bookclub_platform.core.errors import ConfigurationError
from bookclub_platform.core.progress import Progress
from bookclub_platform.core.settings import load_settings
from bookclub_platform.core.tables import select_data_version, select_training_rows
from bookclub_platform.models import BookText, Model, Tfidf
from bookclub_platform.models._health import ListHealth, list_health
from bookclub_platform.models._samples import samples_page
from bookclub_platform.resources import BooksDatabase, MlflowRegistry

MIN_COVERAGE = 0.9
SAMPLES = "samples.html"

_CHOSEN = Tfidf()


class TfidfConfig(dg.Config):
    """The parameters of models/tfidf.py, which says why the defaults were chosen.

    Attributes:
        embedding: `none` or `minilm`; unset, what the setting BOOKCLUB_EMBEDDING says.
    """

    title_weight: int = _CHOSEN.title_weight
    category_name_weight: int = _CHOSEN.category_name_weight
    category_weight: float = _CHOSEN.category_weight
    min_df: int = _CHOSEN.min_df
    unknown_categories: list[str] = Field(default=list(_CHOSEN.unknown_categories))
    embedding: str | None = Field(default=None, pattern="^(none|minilm)$")
    embedding_weight: float = Field(default=_CHOSEN.embedding_weight, ge=0, le=1)

    def parameters(self) -> dict[str, Any]:
        """What the model is made with."""
        return self.model_dump() | {"embedding": self.embedding or load_settings().embedding}


@dg.asset(
    name="tfidf_model",
    description="TF-IDF over title, description and category of every listed book, as a version in the model registry.",
    deps=["books"],
    group_name="models",
    owners=[DATA_SCIENCE],
    kinds={"python", "scikitlearn", "mlflow"},
    code_version="1",
    check_specs=[
        dg.AssetCheckSpec(
            "lists_are_sound",
            asset="tfidf_model",
            blocking=True,
            description="No list holds its own book or one twice, and nearly every book has a list. "
            "Only a model that passes becomes champion.",
        )
    ],
)
def tfidf_model(
    context: dg.AssetExecutionContext,
    config: TfidfConfig,
    database: BooksDatabase,
    registry: MlflowRegistry,
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
    metrics = {
        **model.counts,
        **model.figures_,
        "coverage": health.coverage,
        "largest_exposure": health.largest_exposure,
        "fit_seconds": round(fitted - started, 3),
    }
    opened = registry.open()
    version = opened.publish(
        model,
        parameters=model.parameters,
        metrics=metrics,
        tags={
            "data_version": data_version,
            "dagster_run_id": context.run_id,
            "dagster_run": registry.run_page(context.run_id),
        },
        artifact_root=registry.artifact_root,
        pages={SAMPLES: samples_page({"this model": model}, rows)},
    )
    run_url = opened.run_url(version, registry.ui_url)
    is_sound = health.is_sound(MIN_COVERAGE)
    if is_sound:
        opened.promote(version)
    progress.advance("train", f"version {version.version}")
    return dg.MaterializeResult(
        metadata=metrics
        | {
            "dagster/row_count": len(rows),
            "data_version": data_version,
            "registered_version": version.version,
            "is_champion": is_sound,
            "mlflow_run": dg.MetadataValue.url(run_url),
            "sample_recommendations": dg.MetadataValue.url(f"{run_url}/artifacts/pages/{SAMPLES}"),
            "seconds": round(time.perf_counter() - started, 3),
            "preview": preview(_sample_lists(model, rows)),
        },
        check_results=[_check(health, is_sound)],
    )


def _training_rows(database: BooksDatabase) -> tuple[list[BookText], str]:
    with database.begin() as connection:
        # One snapshot for both reads, or the version could name rows that the model never saw.
        connection.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        version = connection.execute(select_data_version()).scalar_one()
        rows = [BookText(*row) for row in connection.execute(select_training_rows())]
    return rows, str(version)


def _check(health: ListHealth, is_sound: bool) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name="lists_are_sound",
        passed=is_sound,
        metadata={
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
