"""A request's `X-Request-ID` and `traceparent`, or new ones -> the ids in log lines and in outgoing requests.

    app.add_middleware(TraceRequests, log_all=False); tracing.current(); httpx.post(url, headers=tracing.outgoing())

W3C Trace Context, level 1: the client's trace continues, with a span of our own; nothing is sent to a collector.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.http.headers import Pair, named

log = logging.getLogger("bookclub.requests")

SLOW_S = 1.0

# These values from clients go into the log and into response headers: nothing in them may end a line or fill a disk.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=@:-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?", re.ASCII
)

_TRACESTATE = re.compile(r"[ -~]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """The current request, for the log; trace and span ids are in hex. `flags` and `state` are the client's: whether
    the trace is recorded, and what the systems that it passed through say about it."""

    request_id: str
    trace_id: str
    span_id: str
    flags: str = "00"
    state: str = ""


_current: ContextVar[Trace | None] = ContextVar("bookclub_trace", default=None)


def current() -> Trace | None:
    """The trace of the current request; None outside of a request."""
    return _current.get()


def outgoing() -> dict[str, str]:
    """Headers for a request that is sent on behalf of the current one; empty outside of a request."""
    trace = _current.get()
    if trace is None:
        return {}
    sent = {"traceparent": f"00-{trace.trace_id}-{trace.span_id}-{trace.flags}", "x-request-id": trace.request_id}
    return sent | {"tracestate": trace.state} if trace.state else sent


def trace_of(headers: Sequence[Pair]) -> Trace:
    """The ids of a request, as far as they are valid; the others are generated."""
    fresh = f"{random.getrandbits(256):064x}"  # not secrets, and the system's generator takes ten times as long
    request_id = named(headers, b"x-request-id")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = fresh[:16]
    # Version 00 ends after the flags; a later version may have more fields, and we read those that we know.
    parent = _TRACEPARENT.fullmatch(named(headers, b"traceparent"))
    if parent is None or (parent[0].startswith("00-") and parent[3]):
        return Trace(request_id, fresh[16:48], fresh[48:])
    return Trace(request_id, parent[1], fresh[48:], parent[2], _state_of(headers))


def _state_of(headers: Sequence[Pair]) -> str:
    """The value of `tracestate`, which may be split over several headers; "" if it does not have to be passed on."""
    state = ",".join(value.decode("latin-1") for name, value in headers if name == b"tracestate")
    return state if _TRACESTATE.fullmatch(state) else ""


class TraceRequests:
    """ASGI middleware, the outermost except for Starlette's own: everything that is logged inside names the request.

    Responses carry their `X-Request-ID`. A request that failed or was slow is logged; with `log_all`, every request.
    """

    def __init__(self, app: ASGIApp, log_all: bool) -> None:
        self._app, self._log_all = app, log_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = trace_of(scope["headers"])
        # Never reset: each request has its own task, in which the server logs errors after this middleware.
        _current.set(trace)
        started, status = time.perf_counter(), 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", trace.request_id.encode("ascii")))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            took_s = time.perf_counter() - started
            if self._log_all or status >= 500 or took_s > SLOW_S:
                _write(scope, status, took_s)


def _write(scope: Scope, status: int, took_s: float) -> None:
    client = scope.get("client")
    facts = {
        "method": scope["method"],
        "path": scope["path"],
        "route": getattr(scope.get("route"), "path", None),
        "status": status,
        "took_ms": round(1000 * took_s, 1),
        "address": client[0] if client else None,
    }
    level = logging.ERROR if status >= 500 and status != 503 else logging.WARNING if status == 503 else logging.INFO
    log.log(level, "%s %s -> %d", scope["method"], scope["path"], status, extra={"facts": facts})
