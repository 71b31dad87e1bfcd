"""Records of `logging` -> lines of JSON on stderr, each with the request that it belongs to.

    {"at": "2026-01-01T12:00:00.000+00:00", "level": "INFO", "logger": "serving.app", "message": "...",
     "request_id": "5f0c...", "trace_id": "...", "span_id": "..."}

Ids are there where a request is under way; `exception` where there is a trace; `facts` of a request, `audit` of an act.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, TextIO

from bookclub_platform.core import audit
from serving.http import tracing


class CutShort(Exception):
    """Ends an answer that is under way, so that its client sees that it is not whole. Who raises it has logged why."""


def _is_news(record: logging.LogRecord) -> bool:
    """Whether nobody has told of it: uvicorn writes a trace of whatever ends an answer."""
    return not (record.exc_info and isinstance(record.exc_info[1], CutShort))


class JsonLines(logging.Formatter):
    """One line a record, in ASCII: nothing that somebody sent can begin a line of its own."""

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
    """What writes records as such lines to `stream`; None: to stderr."""
    written = logging.StreamHandler(stream)
    written.setFormatter(JsonLines())
    written.addFilter(_is_news)
    return written


def configure() -> None:
    """Write everything that this process logs to stderr, what uvicorn has to say too."""
    logging.basicConfig(level=logging.INFO, handlers=[handler()], force=True)
