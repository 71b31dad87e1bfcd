"""Requests, responses from memory and the champion in use -> metrics in Prometheus' text format, served at /metrics.

deploy/grafana/bookclub.json is a dashboard for them. Any of several workers may be scraped: figures.py joins their
metrics.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bookclub_platform.core.feedback import Kind
from serving.answers.kept import KeptAnswers
from serving.database.datawatch import DataWatch
from serving.monitoring.figures import WRITTEN_EVERY_S, SharedFigures
from serving.recommender.champion import ChampionKeeper

log = logging.getLogger(__name__)

MEDIA_TYPE = CONTENT_TYPE_LATEST
# A crawl makes fifty data versions, and each (route, model, data version) has a series for every bucket.
VERSIONS_SHOWN = 3
MODELS_SHOWN = 10

_UP_TO_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics(Collector):
    """The metrics of one application, in its own registry, so that two applications in one process do not mix."""

    def __init__(
        self, keeper: ChampionKeeper, kept: KeptAnswers, watch: DataWatch, shared: SharedFigures | None = None
    ) -> None:
        """`shared`: where the other workers write their metrics; None for a single worker."""
        self._keeper, self._kept, self._watch, self._shared = keeper, kept, watch, shared
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._has_failed = False
        # Series that were used before: finding one by its labels costs as much as counting with it.
        self._by_status: dict[tuple[str, str, int], Histogram] = {}
        self._versions: OrderedDict[tuple[str, str], dict[str, Histogram]] = OrderedDict()
        self._models: deque[str] = deque(maxlen=MODELS_SHOWN)
        self._latency = Histogram(
            "bookclub_http_request_seconds",
            "Time from a request to the end of its response.",
            ["method", "route", "status"],
            buckets=_UP_TO_S,
            registry=self._registry,
        )
        self._by_version = Histogram(
            "bookclub_answer_seconds",
            f"The same, by model and data version of the response; the last {VERSIONS_SHOWN} such pairs.",
            ["route", "model", "data_version"],
            buckets=_UP_TO_S,
            registry=self._registry,
        )

        self._feedback = Counter(
            "bookclub_feedback_events",
            "Stored feedback events, by kind and by the model that recommended the book.",
            ["kind", "model"],
            registry=self._registry,
        )

    def note_feedback(self, kind: str, model: str) -> None:
        """Count one stored event; `model` has the form `tfidf_model/1`."""
        if (champion := self._keeper.current) is not None:
            self._meet(champion.version.label)
        # Clients send the model, and could invent any number of versions.
        self._feedback.labels(kind, model if model in self._models else "other").inc()

    def note(self, method: str, route: str, status: int, versions: tuple[str, str] | None, took_s: float) -> None:
        """Count a finished request; `versions` are the (model, data version) that its response named."""
        key = method, route, status
        if (series := self._by_status.get(key)) is None:
            series = self._by_status[key] = self._latency.labels(method, route, str(status))
        series.observe(took_s)
        if versions is None:
            return
        self._meet(versions[0])
        routes = self._versions.setdefault(versions, {})
        if route not in routes:
            routes[route] = self._by_version.labels(route, *versions)
        if len(self._versions) > VERSIONS_SHOWN:
            oldest, its_routes = self._versions.popitem(last=False)
            for its_route in its_routes:
                self._by_version.remove(its_route, *oldest)
        self._versions.move_to_end(versions)
        routes[route].observe(took_s)

    def _meet(self, model: str) -> None:
        """Remember a model that is in use, so that its feedback is counted; the oldest of many is forgotten."""
        if not model or model in self._models:
            return
        if len(self._models) == MODELS_SHOWN:
            for kind in get_args(Kind):
                self._feedback.remove(kind, self._models[0])
        self._models.append(model)

    def collect(self) -> Iterator[Metric]:
        """What other objects count themselves, collected when Prometheus scrapes."""
        yield CounterMetricFamily("bookclub_model_swaps", "Champions loaded since the start.", self._keeper.swaps)
        if (champion := self._keeper.current) is not None:
            version = champion.version
            facts = {"name": version.name, "version": version.version, "run_id": version.run_id}
            yield InfoMetricFamily("bookclub_model", "The champion in use.", facts)
        fault = float(self._keeper.lasting_fault() is not None)
        yield GaugeMetricFamily("bookclub_model_fault", "1 while the champion in use is not the registry's.", fault)
        fault = float(self._keeper.lasting_books_fault() is not None)
        yield GaugeMetricFamily("bookclub_books_fault", "1 while new and changed books are not recommended.", fault)
        if self._watch.version is not None:
            said = "Data version that answers are of."
            yield GaugeMetricFamily("bookclub_data_version", said, float(self._watch.version))
        said = "1 while Postgres answers within a second."
        yield GaugeMetricFamily("bookclub_database_up", said, float(self._watch.is_current))
        asked = CounterMetricFamily(
            "bookclub_answer_cache_requests", "Cacheable requests, by outcome.", labels=["outcome"]
        )
        for outcome in ("hits", "stale", "misses"):
            asked.add_metric([outcome], getattr(self._kept, outcome))
        yield asked
        said = "Responses assembled from books and reasons in memory."
        yield CounterMetricFamily("bookclub_answers_composed", said, self._kept.composed)
        yield GaugeMetricFamily("bookclub_answer_cache_bytes", "Bytes of cached responses.", self._kept.size_bytes)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format; those of other workers are up to a second old, or left out if they
        cannot be read."""
        if self._shared is None:
            return generate_latest(self._registry)
        own = list(self._registry.collect())
        self._write(self._shared, own)  # a counter goes back if another worker is scraped next and has an older one
        joined = CollectorRegistry()
        joined.register(_Joined(self._shared, own))
        return generate_latest(joined)

    async def share(self) -> None:
        """Write this worker's metrics regularly, until cancelled."""
        while self._shared is not None:
            await asyncio.to_thread(self._write, self._shared, list(self._registry.collect()))
            await asyncio.sleep(WRITTEN_EVERY_S)

    def _write(self, shared: SharedFigures, own: list[Metric]) -> None:
        try:
            shared.write(own)
        except OSError as error:
            if not self._has_failed:
                log.warning("The metrics of this worker cannot be shared with the others: %s", error)
            self._has_failed = True
        else:
            self._has_failed = False


class _Joined(Collector):
    def __init__(self, shared: SharedFigures, own: list[Metric]) -> None:
        self._shared, self._own = shared, own

    def collect(self) -> Iterator[Metric]:
        return self._shared.together(self._own)


class MeasureRequests:
    """ASGI middleware that reports every request to `metrics`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        headers: list[tuple[bytes, bytes]] = []

        async def note_status(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        finally:
            # The template of the route, never the path: there are endless paths, and each would be a series of its own.
            route = getattr(scope.get("route"), "path", "other")
            took_s = time.perf_counter() - started
            self._metrics.note(_known_method(scope["method"]), route, status, _versions(headers), took_s)


def _versions(headers: list[tuple[bytes, bytes]]) -> tuple[str, str] | None:
    named = dict(headers)
    data_version = named.get(b"bookclub-data-version")
    return (named.get(b"bookclub-model", b"").decode(), data_version.decode()) if data_version is not None else None


def _known_method(method: str) -> str:
    """Clients could invent any number of methods, too."""
    return method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} else "other"
