"""What the JSON gateway offers, as OpenAPI: its messages from the protocol's own descriptors. In words: docs/reference/runner.md.

`/runner/openapi.json` describes the gateway alone, as Runner's clients look for it; the document of all doors has it too.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor

import firebox
from firebox.doors.http.openapi import ASKER, TEXT, Answer, Door, Named, Operation, Parameter, Schema
from firebox.doors.runner.proto.runner_pb2 import DESCRIPTOR

TAG = "runner"

_TYPES: dict[int, dict[str, str]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    # A JSON number is not exact at that size.
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64"},
}
_STATUS = {
    "type": "object",
    "description": "A gRPC status: its number and its words.",
    "properties": {
        "code": {"type": "integer", "format": "int32"},
        "message": {"type": "string"},
        "details": {"type": "array", "items": {"type": "object"}},
    },
}
_ID = {"name": "id", "in": "path", "required": True, "schema": _TYPES[FieldDescriptor.TYPE_INT64]}
_WHO = "Who wants this. With a token: the user of the token, unless that is an admin."
_USER_ID = {
    "name": "user_id",
    "in": "query",
    "required": False,
    "schema": _TYPES[FieldDescriptor.TYPE_INT64],
    "description": _WHO,
}
_RUN = {
    "go": ("A Go program", {"code": "package main\n\nfunc main() { println(6 * 7) }"}),
    "python": ("Any other language", {"code": "print(6 * 7)", "language": "python"}),
}


def describe() -> Door:
    """Describe the operations for the document of all doors."""
    number = {**_TYPES[FieldDescriptor.TYPE_INT64], "pattern": "^[+-]?[0-9]{1,19}$"}
    snippet = Parameter("snippet", "Number of the program.", schema=number)
    who = Parameter("user_id", _WHO, "query", schema=number)
    body = (400, 408, 413, 415)
    return Door(
        tags={TAG: "Runner's JSON gateway: runs code, and keeps what ran well."},
        failure=Named("Status"),
        prefix="Runner",
        schemas={"Status": _STATUS, **{name: _schema(name) for name in DESCRIPTOR.message_types_by_name}},
        operations=[
            Operation(
                "post",
                "/run",
                "runner_run",
                TAG,
                "Run a program to its end",
                body=Named("CodeRequest"),
                examples=_RUN,
                answers={200: Answer("The program has ended.", Named("CodeResponse"))},
                errors=(*body, *ASKER),
            ),
            Operation(
                "post",
                "/share",
                "runner_share",
                TAG,
                "Run a program and keep it, unless it has errors",
                body=Named("CodeRequest"),
                examples=_RUN,
                answers={200: Answer("It is kept.", Named("ShareResponse"))},
                errors=(*body, *ASKER),
            ),
            Operation(
                "get",
                "/shared/{snippet}",
                "runner_get_shared",
                TAG,
                "Fetch a kept program",
                parameters=[snippet],
                answers={200: Answer("The program and its output.", Named("CodeResponse"))},
                errors=(400, 404, *ASKER),
            ),
            Operation(
                "delete",
                "/shared/{snippet}",
                "runner_delete_shared",
                TAG,
                "Forget a kept program; admins only",
                parameters=[snippet, who],
                answers={
                    200: Answer("It is forgotten.", Named("DeleteCodeResponse")),
                    499: Answer("Who asks is no admin.", Named("Status")),
                },
                errors=(400, 404, *ASKER),
            ),
            Operation(
                "get",
                "/metrics",
                "get_prometheus_metrics",
                TAG,
                "Numbers for Prometheus, where it looks for them",
                answers={200: Answer("The numbers.", media={TEXT: str})},
                errors=ASKER,
            ),
        ],
    )


@cache
def describe_gateway() -> bytes:
    """Write the document of the gateway alone, as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "Runner", "version": firebox.__version__, "description": "Runs code, and keeps what ran well."},
            "paths": {
                "/run": {"post": _operation("RunCode", "Run a program to its end")},
                "/share": {"post": _operation("ShareCode", "Run a program and keep it, unless it has errors")},
                "/shared/{id}": {
                    "get": _operation("GetCodeByID", "Fetch a kept program", _ID),
                    "delete": _operation("DeleteCode", "Forget a kept program; admins only", _ID, _USER_ID),
                },
            },
            "components": {
                "schemas": {name: _schema(name) for name in DESCRIPTOR.message_types_by_name} | {"Status": _STATUS},
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
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
            "default": _content("Status", description="It could not be done."),
        },
    }


def _content(name: str, **more: object) -> Schema:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}, **more}


def _schema(name: str) -> Schema:
    fields = DESCRIPTOR.message_types_by_name[name].fields
    return {"type": "object", "properties": {field.json_name: _TYPES[field.type] for field in fields}}
