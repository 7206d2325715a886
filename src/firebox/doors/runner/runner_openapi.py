"""OpenAPI description of the JSON gateway, generated from the protocol's descriptors. See also docs/reference/runner.md.
`/runner/openapi.json` describes the gateway alone, where Runner's clients expect it; the document of all doors includes it too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor

import firebox
from firebox.doors.http.openapi import TEXT, Answer, Body, Door, Group, Operation, Parameter, Schema
from firebox.doors.runner.proto.runner_pb2 import DESCRIPTOR

TAG = "runner"

_TYPES: dict[int, dict[str, str]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    # JSON numbers are not exact at that size.
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64"},
}
_STATUS = {
    "type": "object",
    "description": "A gRPC status: its code and message.",
    "properties": {
        "code": {"type": "integer", "format": "int32"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}
_WHO = "Id of the user. With a token, the token's user is used instead, unless it is an admin's."
_ID = {"name": "id", "in": "path", "required": True, "schema": _TYPES[FieldDescriptor.TYPE_INT64]}
_USER_ID = {**_ID, "name": "user_id", "in": "query", "required": False, "description": _WHO}
_NUMBER = {**_TYPES[FieldDescriptor.TYPE_INT64], "pattern": "^[+-]?[0-9]{1,19}$"}
_RUN = Body(
    "CodeRequest",
    {
        "go": ("A Go program", {"code": "package main\n\nfunc main() { println(6 * 7) }"}),
        "python": ("Any other language", {"code": "print(6 * 7)", "language": "python"}),
    },
)
# fmt: off
_OPERATIONS = [
    Operation("POST /run", "runner_run", "Run a program", Answer("The program has ended.", "CodeResponse"), _RUN),
    Operation("POST /share", "runner_share", "Run a program and share it if it succeeds",
        Answer("The program has been stored.", "ShareResponse"), _RUN),
    Operation("GET /shared/{snippet}", "runner_get_shared", "Get a shared program",
        Answer("The program and its output.", "CodeResponse"), errors=[400]),
    Operation("DELETE /shared/{snippet}", "runner_delete_shared", "Delete a shared program; admins only",
        {200: Answer("The program has been deleted.", "DeleteCodeResponse"), 499: Answer("The user is not an admin.", "Status")},
        parameters=[Parameter("user_id", _WHO, "query", _NUMBER)], errors=[400]),
    Operation("GET /metrics", "get_prometheus_metrics", "Metrics for Prometheus", Answer("The metrics.", {TEXT: str})),
]
# fmt: on


def _schema(name: str) -> Schema:
    fields = DESCRIPTOR.message_types_by_name[name].fields
    return {"type": "object", "properties": {field.json_name: _TYPES[field.type] for field in fields}}


_SCHEMAS = {name: _schema(name) for name in DESCRIPTOR.message_types_by_name} | {"Status": _STATUS}

DOOR = Door(
    tags={TAG: "Runner's JSON gateway: runs code and shares it."},
    groups=[Group(TAG, _OPERATIONS, parameters=[Parameter("snippet", "Number of the program.", schema=_NUMBER)])],
    failure="Status",
    prefix="Runner",
    schemas=_SCHEMAS,
)


@cache
def describe_gateway() -> bytes:
    """Return the document of the gateway alone, as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Runner", "version": firebox.__version__, "description": "Runs code and shares it."},
            "paths": {
                "/run": {"post": _operation("RunCode", "Run a program")},
                "/share": {"post": _operation("ShareCode", "Run a program and share it if it succeeds")},
                "/shared/{id}": {
                    "get": _operation("GetCodeByID", "Get a shared program", _ID),
                    "delete": _operation("DeleteCode", "Delete a shared program; admins only", _ID, _USER_ID),
                },
            },
            "components": {"schemas": _SCHEMAS, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
            "security": [{}, {"token": []}],
        }
    )


def _operation(name: str, summary: str, *parameters: dict[str, Any]) -> Schema:
    method = DESCRIPTOR.services_by_name["Runner"].methods_by_name[name]
    request = {"parameters": list(parameters)} if parameters else {"requestBody": _content(method.input_type.name, required=True)}
    return {
        "operationId": f"Runner_{name}",
        "summary": summary,
        "tags": ["Runner"],
        **request,
        "responses": {
            "200": _content(method.output_type.name, description="Done."),
            "default": _content("Status", description="The request failed."),
        },
    }


def _content(name: str, **more: object) -> Schema:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}, **more}
