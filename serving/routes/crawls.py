"""Crawls, for administrators: start one, and follow its progress."""

from __future__ import annotations

import itertools
from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Path, Response, Security

from bookclub_platform.core import audit
from bookclub_platform.core.categories import select_retired_everywhere
from serving.access.guard import guard
from serving.access.tokens import Claims
from serving.dependencies import TheCaller, TheCatalogue, TheDagster
from serving.http import problems
from serving.schemas.crawls import Crawl
from serving.schemas.requests import CrawlRequest

router = APIRouter(
    prefix="/crawls", tags=["Operations"], responses=problems.responses("dagster-unavailable", "database-unavailable")
)

Administrator = Annotated[Claims, Security(guard, scopes=["admin"])]


@router.post(
    "",
    summary="Start a crawl",
    status_code=202,
    responses=problems.responses("unknown-categories", "no-categories", 413, 415, "invalid-request"),
)
async def start_crawl(
    asked: CrawlRequest,
    claims: Administrator,
    caller: TheCaller,
    catalogue: TheCatalogue,
    dagster: TheDagster,
    response: Response,
) -> Crawl:
    """Starts runs of the Dagster job `crawl` for the given categories, or for all that the shops still have. The runs
    are queued, because only one run at a time crawls a shop. GET /crawls/{crawl_id} shows the progress. After a 503
    with `crawl_id`, some or all runs may have been started."""
    known = await dagster.keys()
    if unknown := [key for key in asked.categories or [] if key not in known]:
        raise problems.Problem("unknown-categories", f"Unknown to Dagster: {', '.join(unknown)}.")
    async with catalogue.snapshot() as snapshot:
        retired = {row.category for row in await snapshot.rows(select_retired_everywhere())}
    wanted = set(asked.categories or known) - (set() if asked.categories else retired)
    if not wanted:
        raise problems.Problem("no-categories")
    crawl_id = uuid4()
    stretches = [list(keys) for is_wanted, keys in itertools.groupby(known, key=wanted.__contains__) if is_wanted]
    # Before the start: one that fails, or gets no response, belongs in the audit log, too.
    audit.note("start-crawl", "done", address=caller.address, user_id=claims.user_id, crawl=str(crawl_id))
    crawl = await dagster.start(stretches, crawl_id)
    response.headers["Location"] = f"/crawls/{crawl_id}"
    return crawl


@router.get("/{crawl_id}", summary="Get a crawl", responses=problems.responses("unknown-crawl", "invalid-request"))
async def get_crawl(
    crawl_id: Annotated[
        UUID,
        Path(description="`id` of the crawl, from POST /crawls.", examples=["0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"]),
    ],
    claims: Administrator,
    dagster: TheDagster,
) -> Crawl:
    """The state of the crawl and of its runs."""
    if (crawl := await dagster.crawl(crawl_id)) is None:
        raise problems.Problem("unknown-crawl", f"There is no crawl {crawl_id}.")
    return crawl
