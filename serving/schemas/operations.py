"""Responses of the routes for operators, as /docs shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from serving.schemas.books import ModelRef, ResponseModel


class ModelInfo(ModelRef):
    """The model in use."""

    books: int = Field(description="Number of books that it was trained on.", examples=[1000])
    tags: dict[str, str] = Field(
        description="If known: `data_version` that it was trained on, `judged_against` (the version it was compared "
        "with), `judged_by` (what compared them) and `promoted_at` (when).",
        examples=[{"data_version": "50", "judged_against": "2"}],
    )
    figures: dict[str, float] = Field(
        description="The metrics of its MLflow run.",
        examples=[{"coverage": 1.0, "largest_exposure": 0.026}],
    )
    registered_at: datetime = Field(description="When this version was registered.")
    serving_since: datetime = Field(description="When this server loaded it.")
    is_confirmed: bool = Field(
        description="Whether the registry has confirmed it as champion since this server started. False: the registry "
        "has not responded yet, and this is the local copy of the last champion.",
        examples=[True],
    )


class Health(ResponseModel):
    """The process is alive."""

    status: Literal["ok"] = Field("ok", description="Always `ok`.")


class DependencyCheck(ResponseModel):
    """The state of one dependency."""

    ok: bool = Field(description="Whether it works.")
    detail: str = Field(description="Its state, or what is wrong.", examples=["tfidf_model version 3"])


class Readiness(ResponseModel):
    """The state of every dependency, checked for this request."""

    status: Literal["ready"] = Field(
        description="`ready` while books and recommendations can be answered, even if the registry is down or the disk "
        "is full."
    )
    checks: dict[str, DependencyCheck] = Field(
        description="One entry per dependency.",
        examples=[
            {
                "database": {"ok": True, "detail": "data version 50, in 2 ms"},
                "model": {"ok": True, "detail": "tfidf_model version 3, 1000 books"},
                "registry": {"ok": True, "detail": "asked 1 s ago"},
                "books": {"ok": True, "detail": "asked 1 s ago"},
                "disk": {"ok": True, "detail": "it can be written to, and there is room"},
                "quotas": {"ok": True, "detail": "all workers count together"},
                "token_keys": {"ok": True, "detail": "the file can be used"},
            }
        ],
    )
