"""Which model is in use."""

from __future__ import annotations

from fastapi import APIRouter

from serving.answers.versions import CONDITIONAL, TheFreshness
from serving.dependencies import TheChampion
from serving.http import problems
from serving.schemas.operations import ModelInfo

router = APIRouter(tags=["Operations"])

# Other tags name Dagster's address, and persons.
PUBLIC_TAGS = {"data_version", "judged_against", "judged_by", "promoted_at"}


@router.get("/model", summary="Get the model in use", responses=problems.responses("no-model") | CONDITIONAL)
async def get_model(champion: TheChampion, fresh: TheFreshness) -> ModelInfo:
    """The champion: version, training data, metrics, and when this server loaded it."""
    facts = ModelInfo(
        name=champion.version.name,
        version=champion.version.version,
        run_id=champion.version.run_id,
        books=len(champion.model.book_ids),
        tags={name: told for name, told in champion.version.tags.items() if name in PUBLIC_TAGS and told},
        figures=champion.figures,
        registered_at=champion.version.registered_at,
        serving_since=champion.since,
        is_confirmed=champion.is_confirmed,
    )
    fresh.check_whole(facts)
    return facts
