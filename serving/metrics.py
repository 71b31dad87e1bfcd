"""Requests and the champion in use -> figures in Prometheus' text format, served at /metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.champion import ChampionKeeper

MEDIA_TYPE = CONTENT_TYPE_LATEST


class Metrics(Collector):
    """The figures of one application, in a registry of its own so that two in one process do not mix."""

    def __init__(self, keeper: ChampionKeeper) -> None:
        self._keeper = keeper
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self.latency = Histogram(
            "bookclub_http_request_seconds",
            "Time from a request to the end of its answer.",
            ["method", "route", "status"],
            registry=self._registry,
        )

    def collect(self) -> Iterator[Metric]:
        """What the keeper knows, asked when Prometheus asks."""
        yield CounterMetricFamily("bookclub_model_swaps", "Champions taken up since the start.", self._keeper.swaps)
        if (champion := self._keeper.current) is not None:
            version = champion.version
            facts = {"name": version.name, "version": version.version, "run_id": version.run_id}
            yield InfoMetricFamily("bookclub_model", "The champion in use.", facts)

    def exposition(self) -> bytes:
        """All figures, as Prometheus reads them."""
        return generate_latest(self._registry)


class MeasureRequests:
    """ASGI middleware that tells `metrics` of every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # The template, never the path: of paths there is no end, and each would be a series of its own.
            route = getattr(scope.get("route"), "path", "other")
            labels = (_known_method(scope["method"]), route, str(status))
            self._metrics.latency.labels(*labels).observe(time.perf_counter() - started)


def _known_method(method: str) -> str:
    """A client may invent methods without end as well."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
