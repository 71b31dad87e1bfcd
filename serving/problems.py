"""Anything that goes wrong -> application/problem+json (RFC 9457), and nothing else, whatever the route.

`install(app)` is all that app.py needs; a route raises `Problem` or lets an error of core.errors pass through.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from bookclub_platform.core.errors import BookclubError, DatabaseUnavailable, NoChampion
from serving import tracing
from serving.headers import secure

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_S = 2


class Problem(BookclubError):
    """A request that cannot be answered; `kind` names it for programs (`unknown-book`), `detail` for people."""

    def __init__(
        self, status: int, kind: str, detail: str, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.headers, self.members = status, kind, headers, members


class UnknownBook(Problem):
    """No book has this id."""

    def __init__(self, book_id: int) -> None:
        super().__init__(404, "unknown-book", f"No book has the id {book_id}. GET /books lists those there are.")


class UnknownBooks(Problem):
    """Ids in a body that no book has."""

    def __init__(self, book_ids: list[int]) -> None:
        named = ", ".join(map(str, book_ids))
        super().__init__(
            404, "unknown-books", f"No book has any of these ids: {named}. Ask without them.", book_ids=book_ids
        )


class ProblemResponse(JSONResponse):
    """JSON in ASCII: what a client sent comes back in the detail, lone surrogates too, and UTF-8 cannot hold those."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


_EXAMPLES = {  # status -> kind, detail, path: for /docs
    400: (None, "There was an error parsing the body", "/recommendations:batch"),
    414: (None, "The address may have 8192 bytes at most.", "/books/1/recommendations"),
    401: ("no-token", "This needs an access token: POST /login gives one. Send it as Authorization: Bearer.", "/books"),
    403: ("insufficient-scope", "The token lacks the scope export. Log in with an account that has it.", "/books"),
    409: ("other-order", "The cursor is of a page in the order price: ask with sort=price, or anew.", "/books"),
    501: ("format-absent", "This server cannot write parquet. Ask for ndjson or csv.", "/books/export"),
    429: ("quota-exceeded", "More than 120 requests in 60 s (quota anonymous). Ask again in 1 s.", "/books"),
    404: ("unknown-book", "No book has the id 42. GET /books lists those there are.", "/books/42"),
    413: (None, "The body may have 65536 bytes at most.", "/recommendations:batch"),
    415: (None, "Send the body as JSON, with the header Content-Type: application/json.", "/recommendations:batch"),
    422: ("invalid-request", "query.limit: Input should be less than or equal to 100", "/books"),
    503: ("database-unavailable", "The books cannot be read. Try again in a few seconds.", "/books"),
}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these error statuses."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": schema, "example": _content(status, *_EXAMPLES[status])}},
        }
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Make `app` answer every error as a problem; document.py says so in its OpenAPI document."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(DatabaseUnavailable, _unavailable)
    app.add_exception_handler(NoChampion, _unavailable)
    app.add_exception_handler(Exception, _fault)


def answer(
    request: Request,
    status: int,
    detail: str,
    kind: str | None = None,
    headers: dict[str, str] | None = None,
    **members: Any,
) -> ProblemResponse:
    """The response for one problem; without a `kind` its type is `about:blank`, which stands for the status alone."""
    content = _content(status, kind, detail, request.url.path)
    # What goes wrong is true at that moment alone; without a word a cache may keep a 404.
    return ProblemResponse(content | members, status, {"Cache-Control": "no-store"} | (headers or {}))


def of(request: Request, problem: Problem) -> ProblemResponse:
    """The response for a problem that was raised, or that cannot be: middleware has no handlers around it."""
    return answer(request, problem.status, str(problem), problem.kind, problem.headers, **problem.members)


def _content(status: int, kind: str | None, detail: str, path: str) -> dict[str, Any]:
    return {
        "type": f"tag:bookclub,2026:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": path,
    }


async def _problem(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, Problem)
    return of(request, error)


async def _http_error(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}. /docs lists what there is."
    elif error.status_code == 405:
        detail = f"{request.url.path} does not take {request.method}; it takes {headers.get('Allow')}."
    return answer(request, error.status_code, detail, headers=headers)


async def _invalid_request(request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    # Without the faulty input: it may be as large as the request, or NaN, which JSON cannot say.
    errors = [
        {"loc": list(fault["loc"]), "msg": fault["msg"].removeprefix("Value error, ")} for fault in error.errors()
    ]
    if errors[0]["loc"] == ["body"] and "json" not in request.headers.get("content-type", ""):
        return answer(request, 415, "Send the body as JSON, with the header Content-Type: application/json.")
    detail = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in errors[:5])
    return answer(request, 422, detail, "invalid-request", errors=errors)


async def _unavailable(request: Request, error: Exception) -> ProblemResponse:
    kind = "no-model" if isinstance(error, NoChampion) else "database-unavailable"
    return answer(request, 503, str(error), kind, headers={"Retry-After": str(RETRY_AFTER_S)})


async def _fault(request: Request, error: Exception) -> ProblemResponse:
    """The server's own fault: the trace goes to the log (Starlette raises it again for that), never to the client."""
    # For uvicorn closes the connection after such an error. Untold, a client or gateway that keeps connections loses
    # its next request on this one, which had nothing to do with the error.
    detail = "The server made a mistake, which its log describes. Asking again may help."
    trace = tracing.current()  # Starlette makes this answer outside of all middleware
    named = {"X-Request-ID": trace.request_id} if trace is not None else {}
    failed = answer(request, 500, detail, headers={"Connection": "close"} | named)
    secure(failed.headers, request.url.path)
    return failed
