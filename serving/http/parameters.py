"""A request's query -> 422 if it has a parameter that its route does not know, or repeats one that is not a list.

    app.include_router(router, dependencies=[Depends(refuse_unknown)])

If it were ignored silently, a filter that was misspelt, or repeated to mean "either", would give too many books, and
nobody would know why.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import get_origin

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from starlette.datastructures import QueryParams

from serving.http.problems import Fault, InvalidRequest


async def refuse_unknown(request: Request) -> None:
    """Accept the parameters that the route knows. Web pages decide themselves which ones they accept.

    Raises:
        InvalidRequest: names every unknown and every repeated parameter.
    """
    route = request.scope["route"]
    if not request.scope["query_string"] or not route.include_in_schema:
        return
    takes_list = _known(route)
    faults: list[Fault] = [
        {"loc": ["query", name], "msg": f"Unknown parameter. {_names(takes_list)}", "code": "extra_forbidden"}
        for name in request.query_params
        if name not in takes_list
    ]
    faults += [
        {"loc": ["query", name], "msg": "Send it only once: it is not a list", "code": "repeated"}
        for name in request.query_params
        if not takes_list.get(name, True) and len(request.query_params.getlist(name)) > 1
    ]
    if faults:
        raise InvalidRequest(faults)


def _names(known: Collection[str]) -> str:
    return f"This route knows {', '.join(sorted(known))}" if known else "This route has no parameters"


def has_repeated(asked: QueryParams, *lists: str) -> bool:
    """Whether a parameter that is not one of these lists occurs more than once."""
    names = [name for name, _ in asked.multi_items() if name not in lists]
    return len(names) > len(set(names))


def _known(route: APIRoute) -> dict[str, bool]:
    """Each query parameter of the route, and whether it is a list."""
    known: dict[str, bool] = {}
    for parameter in route.dependant.query_params:
        shape = parameter.field_info.annotation
        fields: dict[str, FieldInfo] = {parameter.alias: parameter.field_info}
        if inspect.isclass(shape) and issubclass(shape, BaseModel):
            fields = shape.model_fields
        known |= {name: get_origin(field.annotation) is list for name, field in fields.items()}
    return known
