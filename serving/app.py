"""Settings, database URL, MLflow URL -> the FastAPI application. The composition root of `serving`.

    app = create_app(load_settings(), "postgresql://user:password@host/bookclub", "http://127.0.0.1:5000")

run.py serves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from fastapi import Depends, FastAPI, Security
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from bookclub_platform.core.database import database_urls
from bookclub_platform.core.settings import Settings
from bookclub_platform.core.token_keys import KeyRing
from bookclub_platform.models import Tfidf, reader
from serving.access.accounts import Accounts
from serving.access.gate import Gate
from serving.access.guard import guard
from serving.access.quotas import SharedQuotas
from serving.access.tokens import Tokens
from serving.answers import fixed, versions
from serving.answers.composed import ComposeAnswers
from serving.answers.kept import KeepAnswers, KeptAnswers
from serving.books.book_bytes import BookBytes
from serving.books.book_files import BookFiles
from serving.crawls import Dagster
from serving.database.account_locks import AccountLocks
from serving.database.catalogue import Catalogue
from serving.database.datawatch import DataWatch
from serving.database.exports import MEDIA_TYPES, Exports
from serving.feedback import FeedbackStore, Popular
from serving.http import problems
from serving.http.codings import RefusedCodings
from serving.http.heads import AnswerHeads
from serving.http.limits import LimitBody
from serving.http.parameters import refuse_unknown
from serving.http.security import RefuseBroken, SecureAnswers
from serving.http.tracing import TraceRequests
from serving.monitoring.figures import SharedFigures
from serving.monitoring.metrics import MeasureRequests, Metrics
from serving.openapi import document
from serving.openapi.description import description
from serving.process.disk import Disk
from serving.recommender.champion import ChampionKeeper
from serving.recommender.lineup import Lineups
from serving.recommender.served import Served
from serving.routes import routers
from serving.schemas.rules import RULES
from serving.web.assets import STATIC, Assets
from serving.web.pages import quota_page
from serving.web.shelf import COVERS, CoverFiles, Shelf

log = logging.getLogger(__name__)

COMPRESSED = (*DEFAULT_EXCLUDED_CONTENT_TYPES, MEDIA_TYPES["parquet"])
PACKING: dict[str, Any] = {"minimum_size": 1000, "compresslevel": 5, "exclude_content_types": COMPRESSED}
# Turns off FastAPI's OpenTelemetry support: nobody sets it up here, and FastAPI would check for it on each request.
_UNTOLD: Any = {"tracing": False, "metrics": False, "logs": False}


class Services(NamedTuple):
    """The parts of the application; `books` is None if no books are kept in memory."""

    watch: DataWatch
    books: BookBytes | None
    lineups: Lineups
    keeper: ChampionKeeper
    catalogue: Catalogue
    tokens: Tokens
    quotas: SharedQuotas
    accounts: Accounts
    kept: KeptAnswers
    metrics: Metrics
    exports: Exports
    feedback: FeedbackStore
    popular: Popular
    shelf: Shelf


def create_app(settings: Settings, database_url: str, tracking_uri: str, figures: Path | None = None) -> FastAPI:
    """The API for the books at `database_url` and the champion of the MLflow server at `tracking_uri`. `figures` is the
    folder where several workers write their metrics.

    It connects to neither before startup, and starts without either: requests that need one of them get 503 until it
    is available.
    """
    services = _services(settings, database_urls(database_url).books, tracking_uri, figures)
    # FastAPI's own /docs loads its scripts from a CDN, and stays blank without internet access.
    app = FastAPIOffline(
        title="Book Club API",
        version="1",
        summary="Books and similar books.",
        description=description(settings),
        servers=[{"url": "/"}],  # the host of this document; otherwise generated clients use http://localhost
        openapi_tags=document.TAGS,
        lifespan=lambda _: _running(services, settings),
        generate_unique_id_function=attrgetter("name"),  # the function names in generated clients
        telemetry=_UNTOLD,
    )
    _add_middleware(app, services, settings)
    problems.install(app, RULES)
    versions.install(app)
    # Before the pages, whose catch-all route matches every path below /catalogue.
    app.mount(COVERS, CoverFiles(directory=services.shelf.folder, check_dir=False))
    for router, is_open in routers():
        closed = [] if is_open else [Security(guard, scopes=["read"])]
        app.include_router(router, dependencies=[*closed, Depends(refuse_unknown)])
    app.mount(STATIC, Assets())
    document.install(app, settings)
    fixed.install(app)
    return app


def _services(settings: Settings, database_url: str, tracking_uri: str, figures: Path | None) -> Services:
    watch = DataWatch(database_url)
    cache_bytes = settings.answer_cache_mb * 2**20
    # Half for whole responses; a quarter each for the books and the reasons from which other responses are composed.
    own = settings.home / "serving"
    filed = BookFiles(own / "books", own / "stock", database_url)
    books = BookBytes(cache_bytes // 4, filed) if cache_bytes else None
    lineups = Lineups(database_url, watch, books, near_bytes=cache_bytes // 4, folder=own / "stock")
    served = Served(database_url)
    keeper = ChampionKeeper(reader(tracking_uri), Tfidf.name, own / "models", settings.model_poll_s, lineups, served)
    tokens = Tokens(KeyRing(settings.token_keys_file))
    quotas = SharedQuotas(own / "windows")
    accounts = Accounts(
        database_url,
        watch,
        tokens,
        quotas,
        settings.logins_per_minute,
        settings.registrations_per_hour,
        is_login_required=settings.require_login,
        is_registration_open=settings.open_registration,
    )
    kept = KeptAnswers(cache_bytes // 2)
    catalogue = Catalogue(database_url, watch)
    return Services(
        watch=watch,
        books=books,
        lineups=lineups,
        keeper=keeper,
        catalogue=catalogue,
        tokens=tokens,
        quotas=quotas,
        accounts=accounts,
        kept=kept,
        metrics=Metrics(keeper, kept, watch, SharedFigures(figures) if figures is not None else None),
        exports=Exports(database_url, watch, AccountLocks(settings.home / "serving" / "exports")),
        feedback=FeedbackStore(database_url, watch, quotas, settings.feedback_per_day, served),
        popular=Popular(catalogue),
        shelf=Shelf(settings.home / "covers"),
    )


@contextlib.asynccontextmanager
async def _running(services: Services, settings: Settings) -> AsyncIterator[dict[str, Any]]:
    """The lifespan: run the background tasks for data, model and metrics, and give routes what they respond with."""
    services.shelf.folder.mkdir(parents=True, exist_ok=True)
    dagster = Dagster(settings.dagster_address)
    given = ("catalogue", "keeper", "metrics", "shelf", "accounts", "exports", "feedback", "popular", "quotas")
    async with contextlib.AsyncExitStack() as closing:  # whatever one of them raises, the others are closed too
        closing.callback(dagster.close)
        closing.callback(services.lineups.close)
        for service in (services.catalogue, services.feedback, services.accounts):
            closing.push_async_callback(service.close)
        services.watch.start()
        closing.callback(services.watch.stop)
        for work in (services.keeper.run(), services.metrics.share()):
            task = asyncio.create_task(work)
            task.add_done_callback(_log_fault)
            closing.push_async_callback(_ended, task)
        yield {
            "dagster": dagster,
            "report": settings.report,
            "disk": Disk(settings.home),
            **{name: getattr(services, name) for name in given},
        }


def _log_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("A background task of this worker has ended: restart it.", exc_info=error)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _add_middleware(app: FastAPI, services: Services, settings: Settings) -> None:
    """The middleware that is added last sees a request first."""
    keeper, accounts, kept, books = services.keeper, services.accounts, services.kept, services.books
    app.add_middleware(LimitBody)
    app.add_middleware(GZipMiddleware, **PACKING)
    if books is not None:
        parts: dict[str, Any] = {"keeper": keeper, "catalogue": services.catalogue, "books": books}
        app.add_middleware(ComposeAnswers, counts=kept, accounts=accounts, packing=PACKING, **parts)
        app.add_middleware(KeepAnswers, kept=kept, keeper=keeper, watch=services.watch, accounts=accounts)
    app.add_middleware(RefusedCodings)
    app.add_middleware(Gate, tokens=services.tokens, quotas=services.quotas, settings=settings, page=quota_page)
    app.add_middleware(RefuseBroken)
    if settings.cors_origin_list:
        app.add_middleware(problems.AnswerFaults)
        app.add_middleware(CORSMiddleware, **_cors(settings.cors_origin_list))
    app.add_middleware(SecureAnswers)
    app.add_middleware(AnswerHeads)
    if settings.trusted_proxy_list:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=settings.trusted_proxy_list)
    app.add_middleware(MeasureRequests, metrics=services.metrics)
    app.add_middleware(TraceRequests, log_all=settings.request_log == "all")


def _cors(origins: list[str]) -> dict[str, Any]:
    """No cookies: a token identifies the caller, and a page of another site does not have it."""
    return {
        "allow_origins": origins,
        "allow_methods": ["GET", "HEAD", "POST", "DELETE"],
        "allow_headers": [
            "Authorization",
            "Content-Type",
            "If-None-Match",
            "Traceparent",
            "Tracestate",
            "X-Request-ID",
        ],
        "expose_headers": [*document.HEADERS, "Allow", "Content-Disposition"],
        "max_age": 600,
    }
