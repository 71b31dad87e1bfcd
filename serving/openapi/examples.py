"""A schema of the OpenAPI document -> an example of it, assembled from the examples of its fields.

So each route has a complete example that nobody maintains by hand and that cannot differ from its schema.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_BY_FORMAT = {
    "date-time": "2026-01-01T12:00:00Z",
    "uuid": "0d6f2c3e-5b0a-4a57-9a3e-6f2d7c1b9e10",
}
_BY_TYPE = {"boolean": True, "integer": 1, "number": 1.0, "string": "text", "null": None}


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """An example of `schema`: its own, its default, or one assembled from its parts. References are to `schemas`."""
    if "examples" in schema:
        return schema["examples"][0]
    for word in ("example", "default", "const"):
        if word in schema:
            return schema[word]
    if "$ref" in schema:
        return example_of(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "enum" in schema:
        return schema["enum"][0]
    if choices := schema.get("anyOf") or schema.get("allOf"):
        return example_of(choices[0], schemas)
    if "properties" in schema:
        return {name: example_of(field, schemas) for name, field in schema["properties"].items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas)]
    return _BY_FORMAT.get(schema.get("format", ""), _BY_TYPE.get(schema.get("type", ""), {}))


def example_of_model(model: type[BaseModel]) -> Any:
    """An example of `model`, for any document."""
    schema = model.model_json_schema()
    return example_of(schema, schema.get("$defs", {}))


def complete_examples(schemas: dict[str, Any]) -> None:
    """If a field refers to another schema and has its own example, that has only the differences: add the rest."""
    fields = [field for schema in schemas.values() for field in schema.get("properties", {}).values()]
    for field in fields:
        if "$ref" in field and "examples" in field:
            field["examples"] = [example_of({"$ref": field["$ref"]}, schemas) | field["examples"][0]]


def add_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Give an example to each request and response body of the operation that has a schema but no example. Files get
    none."""
    bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
    for content in (content for body in bodies for content in body.get("content", {}).values()):
        is_shown = content.keys() & {"example", "examples"} or content.get("schema", {}).get("format") == "binary"
        if "schema" in content and not is_shown:
            content["example"] = example_of(content["schema"], schemas)
