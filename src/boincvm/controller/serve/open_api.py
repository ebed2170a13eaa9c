"""Build the OpenAPI document of the JSON interface from the table of operations."""

from boincvm import __version__
from boincvm.controller.arguments import Kind, Parameter
from boincvm.controller.operations import OPERATIONS, Operation
from boincvm.json_value import Json

_TYPES: dict[Kind, dict[str, Json]] = {
    Kind.TEXT: {"type": "string"},
    Kind.WHOLE: {"type": "integer", "minimum": 0},
    Kind.NUMBER: {"type": "number", "minimum": 0},
    Kind.FLAG: {"type": "boolean"},
    Kind.TEXTS: {"type": "array", "items": {"type": "string"}},
    Kind.TABLE: {"type": "object", "additionalProperties": {"type": "string"}},
}
_REFUSED: dict[str, Json] = {"$ref": "#/components/responses/Refused"}
_BYTES: dict[str, Json] = {"application/octet-stream": {"schema": {"type": "string"}}}


def document() -> dict[str, Json]:
    """Return the document for `/api/openapi.json`."""
    paths = _streams()
    for name, operation in OPERATIONS.items():
        path = f"/api/{name}"
        paths[path] = {**paths.get(path, {}), "post": _operation(operation)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "boincvm controller",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"password": []}],
        "paths": dict(paths),
        "components": _components(),
    }


def _components() -> dict[str, Json]:
    error: dict[str, Json] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "hint", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "hint": {"type": "string"},
                    "code": {"type": "integer", "description": "docs/exit-codes.md"},
                },
            }
        },
    }
    return {
        "schemas": {"Error": error},
        "responses": {
            "Refused": {
                "description": "what happened, and what to do",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
            }
        },
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer"},
            "password": {"type": "http", "scheme": "basic"},
        },
    }


def _operation(operation: Operation) -> dict[str, Json]:
    properties: dict[str, Json] = {
        parameter.name: _schema(parameter) for parameter in operation.parameters
    }
    required: list[Json] = [
        parameter.name for parameter in operation.parameters if parameter.is_required
    ]
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
    follows = {"parameters": [_query("follow")]} if operation.name == "exec" else {}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        **follows,
        "requestBody": {
            "required": bool(required),
            "content": {"application/json": {"schema": schema}},
        },
        "responses": {**_result(), "default": _REFUSED},
    }


def _schema(parameter: Parameter) -> dict[str, Json]:
    schema = dict(_TYPES[parameter.kind])
    if not parameter.is_required:
        schema = {"anyOf": [schema, {"type": "null"}]}
        if parameter.default is not None:
            schema["default"] = parameter.default
    return {**schema, "description": parameter.help}


def _result() -> dict[str, Json]:
    schema: dict[str, Json] = {
        "type": "object",
        "required": ["result"],
        "properties": {"result": {"type": "object"}},
    }
    return {"200": {"description": "done", "content": {"application/json": {"schema": schema}}}}


def _streams() -> dict[str, dict[str, Json]]:
    lines: dict[str, Json] = {
        "200": {
            "description": "JSON objects, one a line",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        "default": _REFUSED,
    }
    data: dict[str, Json] = {"200": {"description": "the bytes", "content": _BYTES}}
    body: dict[str, Json] = {"required": True, "content": _BYTES}
    done: dict[str, Json] = {**_result(), "default": _REFUSED}
    where = [_query("vm", required=True), _query("path", required=True)]
    some = [*where, _query("transfer"), _query("from")]
    to = [_query("vms", required=True), *where[1:]]
    to += [_query("kind"), _query("mode"), _query("modified"), _query("transfer")]
    return {
        "/api/events": {
            "get": _stream("followEvents", lines, [_query("after"), _query("follow")]),
        },
        "/api/commands/{id}/output": {
            "get": _stream("readOutput", lines, [_id(), _query("from"), _query("follow")]),
        },
        "/api/commands/{id}/input": {
            "post": {
                **_stream("giveInput", done, [_id(), _query("ends")]),
                "requestBody": {"required": False, "content": _BYTES},
            },
        },
        "/api/files": {
            "get": _stream("getFile", {**data, "default": _REFUSED}, some),
            "put": {**_stream("putFile", done, to), "requestBody": body},
        },
    }


def _stream(name: str, responses: dict[str, Json], parameters: list[Json]) -> dict[str, Json]:
    return {"operationId": name, "parameters": parameters, "responses": responses}


def _query(name: str, *, required: bool = False) -> Json:
    schema: dict[str, Json] = {"type": "string"}
    return {"name": name, "in": "query", "required": required, "schema": schema}


def _id() -> Json:
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
