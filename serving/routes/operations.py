"""For operators: liveness, readiness, metrics. Probes have no account, so these routes are open to everyone who reaches
the API itself; the gateway does not expose /metrics, and only the status of /ready."""

from __future__ import annotations

import asyncio
import time

from fastapi import APIRouter, Response
from starlette.responses import PlainTextResponse

from bookclub_platform.core.errors import DatabaseUnavailable
from serving.database.catalogue import Catalogue
from serving.dependencies import TheAccounts, TheCatalogue, TheDisk, TheKeeper, TheMetrics, TheQuotas
from serving.http import problems
from serving.monitoring.metrics import MEDIA_TYPE
from serving.recommender.champion import ChampionKeeper
from serving.schemas.operations import DependencyCheck, Health, Readiness

IS_OPEN = True

router = APIRouter(tags=["Operations"])


@router.get("/health", summary="Liveness")
async def get_health() -> Health:
    """`ok` while the process is alive, whatever the state of its dependencies."""
    return Health()


@router.get("/ready", summary="Readiness", responses=problems.responses("not-ready"))
async def get_ready(
    catalogue: TheCatalogue, keeper: TheKeeper, disk: TheDisk, quotas: TheQuotas, accounts: TheAccounts
) -> Readiness:
    """Checks every dependency. Ready means that books and recommendations can be answered: without the registry the
    server continues with the model that it has, without new books with those that it knows (`books`), and with a full
    disk from memory. If it is not ready, the response is a
    problem with the same `checks`. A gateway may pass on the status only."""
    checks = {
        "database": await _database(catalogue),
        "model": _model(keeper),
        "registry": _said(keeper.lasting_fault(), f"asked {time.monotonic() - keeper.asked_at:.0f} s ago"),
        "books": _said(keeper.lasting_books_fault(), f"asked {time.monotonic() - keeper.books_asked_at:.0f} s ago"),
        "disk": _said(await disk.fault(), "it can be written to, and there is room"),
        "quotas": _said(quotas.fault, "all workers count together"),
        "token_keys": _said(accounts.keys_fault, "the file can be used"),
    }
    missing = [name for name in ("database", "model") if not checks[name].ok]
    if missing:
        detail = " ".join(checks[name].detail for name in missing)
        raise problems.Problem("not-ready", detail, checks={name: dict(check) for name, check in checks.items()})
    return Readiness(status="ready", checks=checks)


async def _database(catalogue: Catalogue) -> DependencyCheck:
    started = time.perf_counter()
    try:
        async with catalogue.snapshot() as snapshot:
            pass
    except DatabaseUnavailable as error:
        return DependencyCheck(ok=False, detail=str(error))
    took_ms = 1000 * (time.perf_counter() - started)
    return DependencyCheck(ok=True, detail=f"data version {snapshot.data_version}, in {took_ms:.0f} ms")


def _model(keeper: ChampionKeeper) -> DependencyCheck:
    if (champion := keeper.current) is None:
        return DependencyCheck(ok=False, detail=f"There is no model yet: {keeper.fault}")
    version = champion.version
    detail = f"{version.name} version {version.version}, {len(champion.model.book_ids)} books"
    if not champion.is_confirmed:
        detail += ", a local copy: the registry has not responded since this server started"
    return DependencyCheck(ok=True, detail=detail)


def _said(fault: str | None, otherwise: str) -> DependencyCheck:
    return DependencyCheck(ok=fault is None, detail=fault or otherwise)


_FIGURES = {"text/plain": {"schema": {"type": "string"}, "example": "bookclub_data_version 50\n"}}


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"content": _FIGURES}},
)
async def get_metrics(metrics: TheMetrics) -> Response:
    """Requests and latency by route and status, the model in use, the cache, feedback."""
    return Response(await asyncio.to_thread(metrics.exposition), media_type=MEDIA_TYPE)
