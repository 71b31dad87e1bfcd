"""Settings, the address of the books, the address of the registry -> the API. The composition root on this side.

    run(load_settings(), "postgresql://user:password@host/bookclub", "http://127.0.0.1:5000")

`python -m serving` does the same with the addresses of the environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.staticfiles import StaticFiles

from bookclub_platform.core.errors import PortTaken
from bookclub_platform.core.settings import Settings
from bookclub_platform.models import Registry, Tfidf
from serving import problems
from serving.catalogue import Catalogue
from serving.champion import ChampionKeeper
from serving.limits import LimitBody
from serving.metrics import MeasureRequests, Metrics
from serving.routes import routers
from serving.web.shelf import COVERS, CoverFiles, Shelf

log = logging.getLogger(__name__)

LAST_ANSWERS_S = 5  # how long an end of the process waits for answers under way

DESCRIPTION = """
Books from a shop, and for each of them the books most like it, with the reasons.

* **Paging**: take `next` of a page as `cursor` of the next one, until it is null.
* **Versions**: answers about books carry the headers `Bookclub-Data-Version` and `Bookclub-Model`. One answer is always
  of one data version and one model; the model may change between two requests, without an interruption.
* **Errors** are `application/problem+json` (RFC 9457), whatever the route: read `detail`; tell kinds apart by `type`.
  A 503 heals by itself: ask again after `Retry-After` seconds.
"""


def create_app(settings: Settings, database_url: str, tracking_uri: str) -> FastAPI:
    """The API over the books at `database_url` and the champion of the MLflow at `tracking_uri`.

    Connects to neither before it is started, and starts without either: what needs them answers 503 until they come.
    """
    folder = settings.home / "serving" / "models"
    keeper = ChampionKeeper(Registry(tracking_uri), Tfidf.name, folder, settings.model_poll_s)
    catalogue = Catalogue(database_url)
    metrics = Metrics(keeper)
    shelf = Shelf(settings.home / "covers")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        shelf.folder.mkdir(parents=True, exist_ok=True)
        polling = asyncio.create_task(keeper.run())
        yield {"catalogue": catalogue, "keeper": keeper, "metrics": metrics, "shelf": shelf, "report": settings.report}
        polling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await polling
        await catalogue.close()

    # FastAPI's own /docs loads its scripts from a CDN, and stays white where there is no internet.
    app = FastAPIOffline(
        title="Book Club API",
        version="1",
        summary="Books, and books like them.",
        description=DESCRIPTION,
        openapi_tags=[{"name": name} for name in ("Books", "Recommendations", "Operations")],
        lifespan=lifespan,
    )
    app.add_middleware(LimitBody)
    app.add_middleware(MeasureRequests, metrics=metrics)
    problems.install(app)
    for router in routers():
        app.include_router(router)
    app.mount("/static", StaticFiles(packages=[("serving.web", "static")]))
    app.mount(COVERS, CoverFiles(directory=shelf.folder, check_dir=False))
    return app


def run(settings: Settings, database_url: str, tracking_uri: str) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        PortTaken: something else listens on BOOKCLUB_API_PORT.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(name)s: %(message)s")
    app = create_app(settings, database_url, tracking_uri)
    config = uvicorn.Config(app, access_log=False, server_header=False, timeout_graceful_shutdown=LAST_ANSWERS_S)
    with _listening(settings.api_host, settings.api_port) as listener:
        log.info("Listening on http://%s:%d, described at /docs.", settings.api_host, settings.api_port)
        # After a clean end uvicorn sends itself the signal again, which Python tells as a KeyboardInterrupt.
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket of our own: uvicorn would end the process over a taken port without naming the setting."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(host, port, "BOOKCLUB_API_PORT") from error
        raise
