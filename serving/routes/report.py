"""The page that the asset `catalogue_report` has written, unchanged."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter
from starlette.responses import HTMLResponse

from serving.dependencies import TheReport
from serving.http import problems

log = logging.getLogger(__name__)

router = APIRouter(tags=["Operations"])

# The page needs only its own style and images. `sandbox` disables even a script that somebody managed to put into it;
# the page's own policy narrows the style to the one that it contains.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox allow-top-navigation-by-user-activation"
)
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "private, no-cache"}

_PAGE = {"text/html": {"schema": {"type": "string"}, "example": "<!doctype html><title>The catalogue</title>"}}


@router.get(
    "/report",
    summary="Get the catalogue report",
    response_class=HTMLResponse,
    responses=problems.responses("no-report") | {200: {"content": _PAGE}},
)
async def get_report(report: TheReport) -> HTMLResponse:
    """An HTML page about the catalogue: missing values, distributions, price and rating, categories, texts, price
    history, rejected pages. Dagster updates it after each load."""
    try:
        # Read it whole before the response begins: a new report may replace this one at any moment.
        page = await asyncio.to_thread(report.read_bytes)
    except FileNotFoundError:
        log.info("There is no report at %s yet.", report)
        raise problems.Problem("no-report") from None
    return HTMLResponse(page, headers=HEADERS)
