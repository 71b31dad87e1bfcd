"""Crawls and their runs, as /docs shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field

from serving.schemas.books import ResponseModel

RunStatus = Literal["queued", "running", "succeeded", "failed"]


class CrawlRun(ResponseModel):
    """One run of the Dagster job `crawl`."""

    run_id: str = Field(description="Id of the run in Dagster.", examples=["5a1f0c6e-4f0b-4e5c-9d7d-3a1be2f0c1aa"])
    status: RunStatus = Field(description="How it stands.", examples=["running"])
    first: str = Field(description="First category of the run.", examples=["academic"])
    last: str = Field(
        description="Last category of the run, in Dagster's order; it crawls all in between.", examples=["young-adult"]
    )
    started_at: datetime | None = Field(description="Start time; null while the run is queued.")
    ended_at: datetime | None = Field(description="End time; null until the run has ended.")


class Crawl(ResponseModel):
    """One crawl, which may take several runs."""

    id: UUID = Field(description="Id for GET /crawls/{crawl_id}.")
    status: RunStatus = Field(
        description="`failed` once one of its runs has failed, `succeeded` once all have succeeded.",
        examples=["running"],
    )
    runs: list[CrawlRun] = Field(description="The runs, in the order of their categories.")
