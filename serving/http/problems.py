"""Any error -> application/problem+json (RFC 9457), and nothing else, whatever the route.

`install(app, rules)` is all that app.py needs; a route raises `Problem` or lets an error of core.errors pass through.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypedDict
from urllib.parse import quote

from fastapi import FastAPI, Request, params
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bookclub_platform.core.errors import BookclubError, DatabaseUnavailable, NoChampion
from serving.http import tracing
from serving.http.digits import MAX_ID
from serving.http.headers import secured
from serving.http.problem_kinds import KINDS, MEMBERS, PLAIN

MEDIA_TYPE = "application/problem+json"
# uvicorn closes the connection after an internal error. A client or gateway that keeps connections and does not know it
# would lose its next request, which has nothing to do with the error.
_CLOSING = {"Connection": "close"}
RETRY_AFTER_S = 2
_UNREADABLE_FOR_FASTAPI = "There was an error parsing the body"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")
FORM_WANTED = f"Send the body as a form, with the header Content-Type: {FORMS[0]}."


class FieldFault(BaseModel):
    """One fault of a request."""

    loc: list[str] = Field(
        description="Where the fault is: `query`, `path` or `body`, then field names and list indices (from 0).",
        examples=[["query", "limit"], ["body", "events", "3", "kind"]],
    )
    code: str = Field(
        description="Stable code of the fault, for your own messages: pydantic's error type (`missing`, "
        "`less_than_equal`, `extra_forbidden`, `json_invalid`, ...; for `value_error` see `msg`), or one of ours: "
        "`repeated`, `never_given_out`.",
        examples=["less_than_equal"],
    )
    msg: str = Field(
        description="The fault in words, for developers.", examples=["Input should be less than or equal to 100"]
    )


class ProblemDetails(BaseModel):
    """A problem (RFC 9457). Members that belong to certain kinds only are left out elsewhere."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(
        description="The kind of problem: `tag:bookclub,2026:` and one of the kinds that /docs lists, or "
        "`about:blank` if the status says everything.",
        examples=["tag:bookclub,2026:unknown-book"],
    )
    title: str = Field(description="The kind of problem in words.", examples=["Unknown book"])
    status: int = Field(
        description="The HTTP status.", examples=[404], json_schema_extra={"minimum": 400, "maximum": 599}
    )
    detail: str = Field(
        description="What happened and what to do, for developers, in English.",
        examples=["No book has the id 42."],
    )
    instance: str = Field(
        "",
        description="The path of the request. Absent if the request could not be read as HTTP, and in responses of a "
        "gateway.",
        examples=["/books/42"],
    )
    errors: list[FieldFault] = Field([], description="For `invalid-request`: every fault.")
    book_ids: list[Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": MAX_ID})]] = Field(
        [], description="For `unknown-books`: the unknown ids.", examples=[[41, 42]]
    )
    policies: list[str] = Field(
        [],
        alias="violated-policies",
        description="For `quota-exceeded`: the names of these quotas in `RateLimit-Policy`.",
        examples=[["anonymous"]],
    )
    checks: dict[str, Any] = Field(
        {},
        description="For `not-ready`: the checks, as in a successful response of /ready.",
        examples=[{"database": {"ok": False}}],
    )
    crawl_id: str | None = Field(
        None,
        description="For `dagster-unavailable`: the crawl, which may have started in part; see GET /crawls/{crawl_id}.",
        examples=["0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"],
    )


class Problem(BookclubError):
    """A request that cannot be answered. `kind` names the problem for programs (`unknown-book`), `detail` explains it
    to people; the default is the detail in KINDS."""

    def __init__(
        self, kind: str, detail: str | None = None, headers: dict[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(detail or KINDS[kind].detail)
        self.status, self.kind, self.headers, self.members = KINDS[kind].status, kind, headers, members


class UnknownBook(Problem):
    """No book has this id."""

    def __init__(self, book_id: int) -> None:
        super().__init__("unknown-book", f"No book has the id {book_id}. GET /books lists all books.")


class UnknownBooks(Problem):
    """Ids in a body that no book has."""

    def __init__(self, book_ids: list[int]) -> None:
        named = ", ".join(map(str, book_ids))
        super().__init__(
            "unknown-books", f"No book has any of these ids: {named}. Remove them from the request.", book_ids=book_ids
        )


class OtherOrder(Problem):
    """The cursor belongs to a page in another order."""

    def __init__(self, sort: str) -> None:
        super().__init__(
            "other-order", f"The cursor belongs to the order {sort}. Send sort={sort}, or start again without a cursor."
        )


class Fault(TypedDict):
    """A FieldFault as a plain dictionary, for the code that raises it."""

    loc: list[str]
    msg: str
    code: str


class InvalidRequest(Problem):
    """The request has invalid values."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        detail = "; ".join(f"{'.'.join(fault['loc'])}: {fault['msg']}" for fault in faults[:5])
        super().__init__("invalid-request", detail, errors=faults)


class OtherFilters(Problem):
    """The cursor belongs to a list with other filters."""

    def __init__(self) -> None:
        super().__init__("other-filters")


class ProblemResponse(JSONResponse):
    """JSON in ASCII: the detail repeats what a client sent, even lone surrogates, which UTF-8 cannot encode."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def responses(*asked: int | str) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may return these kinds of problems, or these statuses without a kind."""
    found: dict[int | str, dict[str, Any]] = {}
    for one in asked:
        kind = one if isinstance(one, str) else None
        status, detail = KINDS[one][:2] if isinstance(one, str) else (one, PLAIN[one])
        example = _content(status, kind, detail, "/books") | MEMBERS.get(kind or "", {})
        content = {"schema": {"$ref": "#/components/schemas/ProblemDetails"}, "examples": {}}
        described = found.setdefault(status, {"description": "", "content": {MEDIA_TYPE: content}})
        described["content"][MEDIA_TYPE]["examples"][kind or "about:blank"] = {"value": example}
    return found


def install(app: FastAPI, rules: Mapping[str, str]) -> None:
    """Make `app` return every error as a problem; openapi/document.py describes that in the OpenAPI document. `rules`:
    what to say of a text that does not match a pattern, by pattern."""
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, partial(_invalid_request, rules))
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
    content = _content(status, kind, detail, quote(request.scope["path"]))
    # A problem holds only for that moment; without `no-store` a cache may keep a 404.
    return ProblemResponse(content | members, status, {"Cache-Control": "no-store"} | (headers or {}))


def plain(request: Request, status: int, headers: dict[str, str] | None = None) -> ProblemResponse:
    """The response for a problem whose status says everything."""
    return answer(request, status, PLAIN[status], headers=headers)


def of(request: Request, problem: Problem) -> ProblemResponse:
    """The response for a `Problem`. Middleware calls this instead of raising, because no error handlers surround it."""
    headers = problem.headers or {}
    if problem.status == 503:
        headers = {"Retry-After": str(RETRY_AFTER_S)} | headers
    return answer(request, problem.status, str(problem), problem.kind, headers, **problem.members)


def nothing_there(request: Request, headers: dict[str, str] | None = None) -> ProblemResponse:
    """The response for a path that no route has."""
    detail = f"There is nothing at {request.url.path}. See /docs."
    return answer(request, 404, detail, headers=headers)


def unasked(status: int, detail: str) -> bytes:
    """The body of a problem of a request that was not parsed: without an `instance`."""
    content = {"type": "about:blank", "title": phrase(status), "status": status, "detail": detail}
    return json.dumps(content).encode("ascii")


def phrase(status: int) -> str:
    """The name of the status (RFC 9110)."""
    return HTTPStatus(status).phrase


def _content(status: int, kind: str | None, detail: str, path: str) -> dict[str, Any]:
    return {
        "type": f"tag:bookclub,2026:{kind}" if kind else "about:blank",
        "title": kind.replace("-", " ").capitalize() if kind else phrase(status),
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
    if error.detail == _UNREADABLE_FOR_FASTAPI:
        detail = "The body cannot be read: it is not UTF-8, or nested too deeply, or has a number of too many digits."
    if error.status_code == 404:
        return nothing_there(request, headers)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{request.url.path} does not accept {request.method}, only {headers['Allow']}."
    return answer(request, error.status_code, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    """The methods that the path accepts. Each route knows only its own, and no route knows HEAD, which heads.py answers
    wherever there is GET."""
    if request.scope.get("root_path"):  # a mounted folder of files
        return ["GET", "HEAD"]
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]

    def is_taken(method: str) -> bool:
        scope = {**request.scope, "method": "GET" if method == "HEAD" else method}
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    return list(filter(is_taken, _METHODS))


async def _invalid_request(rules: Mapping[str, str], request: Request, error: Exception) -> ProblemResponse:
    assert isinstance(error, RequestValidationError)
    # Without the faulty input: it may be as large as the request, or NaN, which JSON cannot express.
    errors = [_fault_of(fault, rules) for fault in error.errors()]
    sent = request.headers.get("content-type", "")
    if _takes_form(request):
        if not sent.startswith(FORMS):
            return answer(request, 415, FORM_WANTED)
    elif errors[0]["loc"] == ["body"] and "json" not in sent:
        return plain(request, 415)
    return of(request, InvalidRequest(errors))


def _fault_of(fault: dict[str, Any], rules: Mapping[str, str]) -> Fault:
    if fault["type"] == "json_invalid":  # its place is an offset in the text, and would look like a list index
        (_, place), why = fault["loc"], fault["ctx"]["error"]
        return {"loc": ["body"], "msg": f"Not JSON: {why}, at character {place}", "code": fault["type"]}
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = "Unknown field"
    if fault["type"] == "string_pattern_mismatch":
        message = rules.get(fault["ctx"]["pattern"], message)
    return {"loc": [str(part) for part in fault["loc"]], "msg": message, "code": fault["type"]}


def _takes_form(request: Request) -> bool:
    body = getattr(request.scope.get("route"), "body_field", None)
    return body is not None and isinstance(body.field_info, params.Form)


async def _unavailable(request: Request, error: Exception) -> ProblemResponse:
    kind = "no-model" if isinstance(error, NoChampion) else "database-unavailable"
    return answer(request, 503, str(error), kind, headers={"Retry-After": str(RETRY_AFTER_S)})


class AnswerFaults:
    """ASGI middleware that answers 500 where nothing was sent yet, and raises the error again. For what is outside of
    it: Starlette answers outside of all middleware, where no page of another site may read the problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception:
            if scope["type"] == "http" and not has_begun:
                await plain(Request(scope), 500, _CLOSING)(scope, receive, send)
            raise


async def _fault(request: Request, error: Exception) -> ProblemResponse:
    """An internal error: its traceback goes to the log (Starlette re-raises it for that), never to the client."""
    trace = tracing.current()  # Starlette makes this response outside of all middleware
    named = {"X-Request-ID": trace.request_id} if trace is not None else {}
    failed = plain(request, 500, headers=_CLOSING | named)
    failed.raw_headers = secured(failed.raw_headers, request.url.path)
    return failed
