"""The OpenAPI document of the JSON gateway, made from the protocol's own descriptors."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor

import firebox
from firebox.doors.runner.proto.runner_pb2 import DESCRIPTOR

PATH = "/runner/openapi.json"

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
_USER_ID = {
    "name": "user_id",
    "in": "query",
    "required": False,
    "schema": _TYPES[FieldDescriptor.TYPE_INT64],
    "description": "Who wants this. With a token: the user of the token, unless that is an admin.",
}


@cache
def describe() -> bytes:
    """Write the document, as JSON."""
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


def _operation(name: str, summary: str, *parameters: dict[str, Any]) -> dict[str, Any]:
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


def _content(name: str, **more: object) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}, **more}


def _schema(name: str) -> dict[str, Any]:
    fields = DESCRIPTOR.message_types_by_name[name].fields
    return {"type": "object", "properties": {field.json_name: _TYPES[field.type] for field in fields}}
