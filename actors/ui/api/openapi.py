"""The OpenAPI 3.1 document, made of the operations and of the types that they check and answer with."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from actors.ui.api import types
from actors.ui.api.operation import JSON, Operation
from actors.ui.api.problems import MEDIA_TYPE, Problem

_ALWAYS: Final = (401, 403, 503)
_TEXTS: Final = {
    400: "The body cannot be read",
    401: "A token is needed",
    403: "The token does not allow it",
    404: "There is nothing of this name",
    409: "Only reads a store, or the sequence has a gap",
    413: "The body is too large",
    415: "The content type is not known",
    422: "A value breaks a rule",
    429: "Too many events; Retry-After says when",
    503: "The system or its store is unavailable; Retry-After says when to ask again",
}


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document."""
    wanted: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {
        ("Problem", "serialization"): TypeAdapter(Problem),
        ("Event", "validation"): TypeAdapter(types.Event),
    }
    for each in operations:
        wanted[f"{each.name}:reply", "serialization"] = TypeAdapter(each.reply)
        for kind in (each.query, each.body):
            if kind is not None:
                wanted[f"{each.name}:{kind.__name__}", "validation"] = TypeAdapter(kind)
    schemas, shared = TypeAdapter.json_schemas(
        [(name, mode, adapter) for (name, mode), adapter in wanted.items()], ref_template="#/components/schemas/{model}"
    )
    named = {name: schema for (name, _), schema in schemas.items()}
    components: dict[str, Any] = dict(shared.get("$defs", {}))
    for name in ("Problem", "Event"):
        components.setdefault(name, named[name])
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, named, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "VisuTility Orchestrator",
            "version": importlib.metadata.version("visutility"),
            "description": "The page as an API. Times are seconds since the epoch. A refusal is problem+json (RFC 9457).",
        },
        "servers": [{"url": "/api/v1"}],
        "security": [{"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `ui.tokens`; without any, only the machine of the page is let in.",
                }
            },
        },
    }


def _operation(each: Operation, named: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters = [_parameter(part) for part in each.path.split("/") if part.startswith("{")]
    if each.query is not None:
        schema = _resolved(named[f"{each.name}:{each.query.__name__}"], components)
        required = schema.get("required", [])
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": of}
            for name, of in schema["properties"].items()
        ]
    told: dict[str, Any] = {
        "operationId": each.name,
        "summary": each.summary,
        "responses": {
            "200": {"description": "Done", "content": {JSON: {"schema": named[f"{each.name}:reply"]}}},
            **{str(status): _refused(status) for status in sorted({*_ALWAYS, *each.refuses})},
        },
    }
    if parameters:
        told["parameters"] = parameters
    if each.body is not None:
        content = {"schema": named[f"{each.name}:{each.body.__name__}"]}
        kinds = (JSON, "application/msgpack") if each.packed else (JSON,)
        told["requestBody"] = {"required": True, "content": dict.fromkeys(kinds, content)}
    return told


def _parameter(part: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1, "maxLength": 200}
    return {"name": part.strip("{}"), "in": "path", "required": True, "schema": schema}


def _refused(status: int) -> dict[str, Any]:
    return {
        "description": _TEXTS[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: dict[str, Any] = components[name] if name else schema
    return found
