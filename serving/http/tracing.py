"""A request's `X-Request-ID` and `traceparent`, or new ones -> what lines of the log and requests sent on name.

    app.add_middleware(TraceRequests, log_all=False); tracing.current(); httpx.post(url, headers=tracing.outgoing())

W3C Trace Context, level 1: the trace of whoever asks goes on, with a span of our own; nothing is sent to a collector.
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

# What others send goes into the log and into an answer's headers: nothing that could end a line or fill a disk.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=@:-]{1,128}", re.ASCII)
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?", re.ASCII
)

_TRACESTATE = re.compile(r"[ -~]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """The request under way, for the log: ids in hex. `flags` and `state` are the caller's: whether the trace is
    recorded, and what others that it came through say of it."""

    request_id: str
    trace_id: str
    span_id: str
    flags: str = "00"
    state: str = ""


_current: ContextVar[Trace | None] = ContextVar("bookclub_trace", default=None)


def current() -> Trace | None:
    """Of the request that the running code belongs to; None outside of one."""
    return _current.get()


def outgoing() -> dict[str, str]:
    """The headers of a request that is sent on behalf of the one under way; none outside of one."""
    trace = _current.get()
    if trace is None:
        return {}
    sent = {"traceparent": f"00-{trace.trace_id}-{trace.span_id}-{trace.flags}", "x-request-id": trace.request_id}
    return sent | {"tracestate": trace.state} if trace.state else sent


def trace_of(headers: Sequence[Pair]) -> Trace:
    """The ids that a request brings, as far as they are such; what it does not bring is made."""
    fresh = f"{random.getrandbits(256):064x}"  # these are no secrets, and the system's own take ten times as long
    request_id = named(headers, b"x-request-id")
    if not _REQUEST_ID.fullmatch(request_id):
        request_id = fresh[:16]
    # Version 00 ends after the flags; a later one may go on, and is read as far as we know it.
    parent = _TRACEPARENT.fullmatch(named(headers, b"traceparent"))
    if parent is None or (parent[0].startswith("00-") and parent[3]):
        return Trace(request_id, fresh[16:48], fresh[48:])
    return Trace(request_id, parent[1], fresh[48:], parent[2], _state_of(headers))


def _state_of(headers: Sequence[Pair]) -> str:
    """What `tracestate` says, which may stand in several headers; "" if it is none that has to be sent on."""
    state = ",".join(value.decode("latin-1") for name, value in headers if name == b"tracestate")
    return state if _TRACESTATE.fullmatch(state) else ""


class TraceRequests:
    """ASGI middleware, the outermost but for Starlette's own: what is logged within names the request.

    An answer carries its `X-Request-ID`. A line is written of a request that failed or was slow; of each, if `log_all`.
    """

    def __init__(self, app: ASGIApp, log_all: bool) -> None:
        self._app, self._log_all = app, log_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = trace_of(scope["headers"])
        # Never set back: a request has a task of its own, in which the server logs after us what went wrong.
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
