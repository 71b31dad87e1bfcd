"""Records of `logging` -> JSON lines on stderr, each with the ids of its request.

    {"at": "2026-01-01T12:00:00.000+00:00", "level": "INFO", "logger": "serving.app", "message": "...",
     "request_id": "5f0c...", "trace_id": "...", "span_id": "..."}

The ids are present during a request, `exception` if there is a traceback. The line of a request has its facts as
further members; the line of an audited action has `audit` instead of `message`.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, TextIO

from bookclub_platform.core import audit
from serving.http import tracing


class CutShort(Exception):
    """Ends a response in progress, so that its client sees that it is incomplete. Whoever raises it has logged why."""


def _is_news(record: logging.LogRecord) -> bool:
    """Whether it is not logged yet: uvicorn logs a traceback of every exception that ends a response."""
    return not (record.exc_info and isinstance(record.exc_info[1], CutShort))


class JsonLines(logging.Formatter):
    """One line per record, in ASCII: nothing that a client sent can begin a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
        }
        message = record.getMessage()
        if record.name == audit.LOGGER:
            line["audit"] = json.loads(message)
        else:
            line["message"] = message
        if (trace := tracing.current()) is not None:
            line |= {"request_id": trace.request_id, "trace_id": trace.trace_id, "span_id": trace.span_id}
        if (facts := getattr(record, "facts", None)) is not None:
            line |= facts
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def handler(stream: TextIO | None = None) -> logging.Handler:
    """A handler that writes records as such lines to `stream`; None means stderr."""
    written = logging.StreamHandler(stream)
    written.setFormatter(JsonLines())
    written.addFilter(_is_news)
    return written


def configure() -> None:
    """Write everything that this process logs to stderr, including uvicorn's messages."""
    logging.basicConfig(level=logging.INFO, handlers=[handler()], force=True)
