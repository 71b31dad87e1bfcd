"""The application -> its OpenAPI document, with what applies to all routes: problems, quotas, security, headers,
examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from bookclub_platform.core.settings import Settings
from serving.access import policies
from serving.access.guard import SCHEME
from serving.access.paths import ACCOUNT, LOGINS, REGISTRATIONS, UNLIMITED
from serving.access.policies import Quotas
from serving.access.quotas import Standing
from serving.access.rate_limit import quota_exceeded
from serving.answers.versions import VERSION_HEADERS
from serving.http import problems
from serving.openapi.examples import add_examples, complete_examples, example_of

HEADERS = {  # name -> description, example
    "ETag": (
        "Identifies the state of this URL; other URLs may have the same. Send it as `If-None-Match` to get 304 if "
        "nothing has changed. Every change of any book, and every new model, changes it.",
        'W/"5f1c"',
    ),
    "Cache-Control": (
        "`no-cache`: you may cache the response, but must revalidate it each time. `max-age`: you may use it for so "
        "many seconds without revalidation. `private`: not for shared caches.",
        "public, no-cache",
    ),
    "Accept-Ranges": ("`none`: ranges are not supported; resume with `after`.", "none"),
    "Bookclub-Books": (
        "Number of books in this response: of a resumed export, those that are left. Absent if it is not known in "
        "advance.",
        "1000",
    ),
    "Bookclub-Data-Version": (
        "Data version of the response; of recommendations, search results and segments the version that was ranked, "
        "which `data_version` in the body may be ahead of for some seconds.",
        "50",
    ),
    "Bookclub-Model": ("Name and version of the model in use; absent while there is none.", "tfidf_model/1"),
    "RateLimit-Policy": (
        "The quotas that the request counted against: at most `q` requests in any `w` seconds.",
        '"anonymous";q=120;w=60',
    ),
    "RateLimit": (
        "Your state for each quota: at most `r` more requests in the next `t` seconds (rounded up, so up to a second "
        "more than the window); then some are available again.",
        '"anonymous";r=117;t=58',
    ),
    "Retry-After": ("Seconds to wait before a retry.", "1"),
    "WWW-Authenticate": ("What is wrong with the token, if one was sent (RFC 6750).", "Bearer"),
    "Location": ("URL for the progress of what was started.", "/crawls/0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"),
    "X-Request-ID": ("Id of the request in the server's log, for questions to the operator.", "754000baedcaef39"),
}
TAGS = [
    {"name": "Books", "description": "The catalogue: pages, search, statistics, exports."},
    {"name": "Recommendations", "description": "Similar books, books for a reader, and what readers did with them."},
    {"name": "Accounts", "description": "Needed for exports, feedback and a larger quota."},
    {"name": "Operations", "description": "For operators of the service, not for apps."},
]
_BY_STATUS = {"401": ["WWW-Authenticate"], "202": ["Location"], "429": ["Retry-After"], "503": ["Retry-After"]}
_OF_PATH = {"/books/export": ["Accept-Ranges", "Bookclub-Books"], "/books/popular": ["Cache-Control"]}
_NAMED = {"Books", "Recommendations"}  # tags of responses that depend on the books, and on the model except for:
_OF_BOOKS_ALONE = {"/books/export", "/books/popular"}
_BEFORE_QUOTAS = {"414", "431", "500"}  # sent outside of the middleware that counts requests
_OF_ANY: list[int | str] = [400, 414, "invalid-request", 431, 500]  # possible for any request
_INT32_MAX = 2**31 - 1
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "`ETag` of your cached response. If it is still valid, the response is 304, without a body.",
    "schema": {"type": "string", "examples": ['W/"5f1c"']},
}


def install(app: FastAPI, settings: Settings) -> None:
    """Make `app` complete its document in this way."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        document["paths"] = dict(sorted(document["paths"].items()))  # for people; routers match in another order
        components = document.setdefault("components", {})
        problem = problems.ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update(problem.pop("$defs"), ProblemDetails=problem)
        for member in problem["properties"].values():
            member.pop("default", None)  # it means "may be absent", but client generators read "always present"
        components["headers"] = {
            name: {"description": told, "schema": {"type": "string"}, "example": example}
            for name, (told, example) in HEADERS.items()
        }
        complete_examples(components["schemas"])
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, path, settings.require_login)
                add_examples(operation, components["schemas"])
                _place_problems(operation, path, components["schemas"], policies.every(settings))
                _add_headers(operation, path)
                operation["responses"] = dict(sorted(operation["responses"].items()))
        _size_integers(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _complete(operation: dict[str, Any], path: str, is_login_required: bool) -> None:
    asked = _OF_ANY + ([] if path in UNLIMITED else ["quota-exceeded"])
    needs: list[dict[str, list[str]]] = operation.setdefault("security", [])  # [] means that no token is needed
    for parameter in operation.get("parameters", []):
        _without_null(parameter["schema"])
    if needs:
        asked += ["no-token", "expired-token", "invalid-token", "ended-session"]
    if any(need.get(SCHEME) for need in needs):
        asked += ["insufficient-scope"]
    if needs == [{SCHEME: ["read"]}] and not is_login_required:
        needs.append({})
    for status, described in problems.responses(*asked).items():
        known = operation["responses"].setdefault(str(status), described)
        for kind, content in described["content"].items():
            known["content"][kind]["examples"] |= content["examples"]


def _without_null(schema: dict[str, Any]) -> None:
    """A query has no null: generated clients would send the word `null`."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _place_problems(operation: dict[str, Any], path: str, schemas: dict[str, Any], quotas: Quotas) -> None:
    """Name the kinds of each status, and adapt the examples to this path, its parameters and its quota."""
    bodies = operation.get("requestBody", {}).get("content", {})
    special = {"invalid-request": _invalid(operation, schemas), "quota-exceeded": _spent(operation, path, quotas)}
    for parameter in operation.get("parameters", []):
        path = path.replace(f"{{{parameter['name']}}}", str(example_of(parameter["schema"], {})))
    for status, described in operation["responses"].items():
        if (content := described.get("content", {}).get(problems.MEDIA_TYPE)) is None:
            continue
        for kind, example in content["examples"].items():
            example["value"] |= special.get(kind, {}) | {"instance": path}
            if status == "415" and problems.FORMS[0] in bodies:
                example["value"]["detail"] = problems.FORM_WANTED
        kinds = ", ".join(f"`{kind}`" for kind in content["examples"])
        described["description"] = f"{problems.phrase(int(status))}: {kinds}"


def _invalid(operation: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """The special members of an example of a 422: about something that this operation accepts, or refuses."""
    loc, msg, code = ["query", "colour"], "Unknown parameter. This route has no parameters", "extra_forbidden"
    if "limit" in {parameter["name"] for parameter in operation.get("parameters", [])}:
        loc, msg, code = ["query", "limit"], "Input should be less than or equal to 100", "less_than_equal"
    for content in operation.get("requestBody", {}).get("content", {}).values():
        (schema, *_) = content["schema"].get("anyOf", [content["schema"]])  # anyOf: the body is optional
        body = schemas[schema["$ref"].rpartition("/")[2]]
        loc, msg, code = ["body", next(iter(body.get("required", [])), "colour")], "Field required", "missing"
        if "required" not in body:
            msg, code = "Unknown field", "extra_forbidden"
    problem = problems.InvalidRequest([{"loc": loc, "msg": msg, "code": code}])
    return {"detail": str(problem), **problem.members}


def _spent(operation: dict[str, Any], path: str, quotas: Quotas) -> dict[str, Any]:
    """The special members of an example of a 429: the quota of this operation."""
    confirms = "requestBody" in operation and path == ACCOUNT
    is_open = {} in operation.get("security", [{}])
    names = (
        dict.fromkeys(LOGINS, "login")
        | dict.fromkeys(REGISTRATIONS, "register")
        | {"/feedback": "feedback", "/token/refresh": "refresh"}
    )
    quota = quotas["login" if confirms else names.get(path, "anonymous" if is_open else "account")]
    if not quota.amount:  # no limit here: keep the general example
        return {}
    problem = quota_exceeded(Standing(quota, 0, 9, 9))
    return {"detail": str(problem), **problem.members}


def _size_integers(part: Any) -> None:
    """Give each integer a format: without one, client generators use 32 bits for ids of 53 bits."""
    if isinstance(part, dict):
        if part.get("type") == "integer":
            part.setdefault("format", "int32" if part.get("maximum", _INT32_MAX + 1) <= _INT32_MAX else "int64")
        for value in part.values():
            _size_integers(value)
    elif isinstance(part, list):
        for value in part:
            _size_integers(value)


def _add_headers(operation: dict[str, Any], path: str) -> None:
    is_conditional = "304" in operation["responses"]
    if is_conditional:
        operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
    for status, described in operation["responses"].items():
        names = ["X-Request-ID", *_BY_STATUS.get(status, [])]
        if status == "403" and "insufficient-scope" in described["description"]:
            names += ["WWW-Authenticate"]
        is_before = status in _BEFORE_QUOTAS or (status == "400" and "requestBody" not in operation)
        if path not in UNLIMITED and not is_before:
            names += ["RateLimit", "RateLimit-Policy"]
        if status in {"200", "304"} and _NAMED & set(operation.get("tags", [])) and path != "/feedback":
            names += VERSION_HEADERS[: 1 if path in _OF_BOOKS_ALONE else None]
        if status in {"200", "304"} and is_conditional:
            names += ["ETag", "Cache-Control"]
        if status == "200":
            names += _OF_PATH.get(path, [])
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
