"""The application -> its OpenAPI document, with what holds for every route: problems, quotas, who may ask, headers,
examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serving import problems
from serving.examples import add_examples, complete_examples, example_of
from serving.gate import UNLIMITED
from serving.guard import SCHEME
from serving.versions import VERSION_HEADERS

HEADERS = {  # name -> what it says, an example
    "ETag": ("Names this answer. Send it as `If-None-Match`: 304 says that the answer is still the same.", 'W/"5f1c"'),
    "Cache-Control": ("`no-cache`: keep the answer, but ask each time whether it still holds.", "public, no-cache"),
    "Bookclub-Data-Version": ("The state of the catalogue that the answer is of.", "50"),
    "Bookclub-Model": ("The model in use, and its version; absent while there is none.", "tfidf_model/3"),
    "RateLimit-Policy": (
        "Your quotas, by name: `q` requests pass within any `w` seconds, no more.",
        '"anonymous";q=120;w=60',
    ),
    "RateLimit": (
        "How you stand: no more than `r` requests pass within the next `t` seconds; then some come back.",
        '"anonymous";r=117;t=58',
    ),
    "Retry-After": ("Seconds to wait before the same is asked again.", "1"),
    "WWW-Authenticate": ("What is wrong with the token that was sent, if one was (RFC 6750).", "Bearer"),
    "Location": ("Where to follow what was started.", "/crawls/0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10"),
    "X-Request-ID": ("Names the request in the server's log: tell it to the operator.", "754000baedcaef39"),
}
_BY_STATUS = {"401": ["WWW-Authenticate"], "202": ["Location"], "429": ["Retry-After"], "503": ["Retry-After"]}
_NAMED = {"Books", "Recommendations"}  # tags of answers that rest on the books, and on the model but for these
_OF_BOOKS_ALONE = {"/books/export", "/books/popular"}
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "`ETag` of the last answer to the same request: if that still holds, the answer is 304, without a "
    "body.",
    "schema": {"type": "string", "examples": ['W/"5f1c"']},
}


def install(app: FastAPI, is_login_required: bool) -> None:
    """Make the document of `app` say so."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        components = document.setdefault("components", {})
        problem = problems.ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update(problem.pop("$defs"), ProblemDetails=problem)
        components["headers"] = {
            name: {"description": told, "schema": {"type": "string"}, "example": example}
            for name, (told, example) in HEADERS.items()
        }
        complete_examples(components["schemas"])
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, path, is_login_required)
                add_examples(operation, components["schemas"])
                _place_problems(operation, path)
                _add_headers(operation, path)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _complete(operation: dict[str, Any], path: str, is_login_required: bool) -> None:
    asked: list[int | str] = [] if path in UNLIMITED else ["quota-exceeded"]
    needs: list[dict[str, list[str]]] = operation.get("security", [])
    if needs:
        asked += ["no-token", "expired-token", "invalid-token", "ended-session"]
    if any(need[SCHEME] for need in needs):
        asked += ["insufficient-scope"]
    if needs == [{SCHEME: ["read"]}] and not is_login_required:
        needs.append({})
    if "requestBody" in operation:
        asked += [400]
    for status, described in problems.responses(*asked).items():
        known = operation["responses"].setdefault(str(status), described)
        for kind, content in described["content"].items():
            known["content"][kind]["examples"] |= content["examples"]


def _place_problems(operation: dict[str, Any], path: str) -> None:
    """Name the kinds of each status, and let the examples speak of this path."""
    for parameter in operation.get("parameters", []):
        path = path.replace(f"{{{parameter['name']}}}", str(example_of(parameter["schema"], {})))
    for status, described in operation["responses"].items():
        if (content := described.get("content", {}).get(problems.MEDIA_TYPE)) is None:
            continue
        for example in content["examples"].values():
            example["value"]["instance"] = path
        kinds = ", ".join(f"`{kind}`" for kind in content["examples"])
        described["description"] = f"{problems.phrase(int(status))}: {kinds}"


def _add_headers(operation: dict[str, Any], path: str) -> None:
    is_conditional = "304" in operation["responses"]
    if is_conditional:
        operation.setdefault("parameters", []).append(_IF_NONE_MATCH)
    for status, described in operation["responses"].items():
        names = ["X-Request-ID", *_BY_STATUS.get(status, [])]
        if status == "403" and "insufficient-scope" in described["description"]:
            names += ["WWW-Authenticate"]
        if path not in UNLIMITED:
            names += ["RateLimit", "RateLimit-Policy"]
        if status in {"200", "304"} and _NAMED & set(operation.get("tags", [])) and path != "/feedback":
            names += VERSION_HEADERS[: 1 if path in _OF_BOOKS_ALONE else None]
        if status in {"200", "304"} and is_conditional:
            names += ["ETag", "Cache-Control"]
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
