"""The application -> its OpenAPI document, with what holds for every route: problems, quotas, who may ask,
examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serving import problems
from serving.examples import add_examples
from serving.gate import UNLIMITED
from serving.guard import SCHEME
from serving.schemas import ProblemDetails


def install(app: FastAPI, is_login_required: bool) -> None:
    """Make the document of `app` say so."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generate()
        components = document.setdefault("components", {})
        components.setdefault("schemas", {})["ProblemDetails"] = ProblemDetails.model_json_schema()
        for path, operations in document["paths"].items():
            for operation in operations.values():
                _complete(operation, path, is_login_required)
                add_examples(operation, components["schemas"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # the way that FastAPI documents


def _complete(operation: dict[str, Any], path: str, is_login_required: bool) -> None:
    statuses = [] if path in UNLIMITED else [429]
    needs: list[dict[str, list[str]]] = operation.get("security", [])
    if needs:
        statuses += [401, 403]
    if needs == [{SCHEME: ["read"]}] and not is_login_required:
        needs.append({})
    if "requestBody" in operation:
        statuses += [400]
    for status, described in problems.responses(*statuses).items():
        operation["responses"].setdefault(str(status), described)
