"""What the doctor says of one part, and how he asks over HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 5.0
START = "Start the platform: `make run`."


@dataclass(frozen=True, slots=True)
class Finding:
    """`text` says what was found; where `is_well` is false, `mend` says what to do."""

    part: str
    is_well: bool
    text: str
    mend: str = ""


class NoAnswer(Exception):
    """The address does not answer, or not with what it should; `str()` says how."""


def ask(url: str, question: object | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """What `url` answers to a GET, or to a POST of `question` as JSON.

    Raises:
        NoAnswer: nothing, or an error status.
    """
    data = None if question is None else json.dumps(question).encode()
    told = ({"Content-Type": "application/json"} if data else {}) | dict(headers or {})
    try:
        request = urllib.request.Request(url, data, told)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        raise NoAnswer(f"{url} answers {error.code} {error.reason}{_detail(error)}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise NoAnswer(f"{url} does not answer ({error})") from error


def ask_json(url: str, question: object | None = None) -> Any:
    """The same as JSON; NoAnswer if it is none: another program listens there."""
    try:
        return json.loads(ask(url, question))
    except ValueError as error:
        raise NoAnswer(f"{url} answers with something else: another program listens there") from error


def _detail(error: urllib.error.HTTPError) -> str:
    """What problem+json or MLflow say beside the status."""
    try:
        body = json.loads(error.read())
        return f": {body.get('detail') or body['message']}"
    except (OSError, ValueError, KeyError, AttributeError):
        return ""
