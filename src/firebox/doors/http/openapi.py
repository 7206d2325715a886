"""Building blocks of the OpenAPI document: each door describes its operations in tables, and one document contains them all.
Imported on the first request for the document. Source: OpenAPI 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, cast

import msgspec
from msgspec import Struct, field

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"

Schema = dict[str, Any]
Security = tuple[Mapping[str, list[str]], ...]

BEARER, GLOT_TOKEN, QUERY_TOKEN = "bearer", "glotToken", "queryToken"
NO_TOKEN: Security = ()
OPTIONAL_TOKEN: Security = ({}, {BEARER: []})
"""Needed only if the operator requires it (`require_login`)."""
OPERATOR_TOKEN: Security = ({}, {BEARER: []})
"""An admin's token. Without logins, programs on the server's machine need none."""
EVENT_SOURCE_TOKEN: Security = ({}, {BEARER: []}, {QUERY_TOKEN: []})
"""As OPTIONAL_TOKEN; browsers may send it in the query."""

SECURITY_SCHEMES: dict[str, Schema] = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer TOKEN`. `Token TOKEN` and the bare token are accepted too.",
    },
    GLOT_TOKEN: {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "`Token TOKEN`, as sent by glot-run's clients. `Bearer TOKEN` is accepted too.",
    },
    QUERY_TOKEN: {
        "type": "apiKey",
        "in": "query",
        "name": "access_token",
        "description": "For browsers, which cannot set headers of an EventSource.",
    },
}

ASKER = (401, 403, 429, 503)
"""Error statuses of identifying the client."""
BODY = (400, 408, 413, 415)
"""Error statuses of reading a body."""
_ERROR_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "How to authenticate."},
    429: {"Retry-After": "Seconds to wait before a retry."},
    503: {"Retry-After": "Seconds to wait before a retry."},
}


class RefusedDetail(Struct, frozen=True):
    """What was wrong. code: stable, for programs."""

    code: str
    message: str
    hint: str = ""


class Refused(Struct, frozen=True):
    """A request rejected before it reached a door: its Host header is not allowed, or its head is too large."""

    error: RefusedDetail
    message: str


class Answer(Struct, frozen=True):
    """A response. type: of its JSON, or the types by media type; or the name of one of the door's `schemas`."""

    description: str
    type: Any = None
    headers: Mapping[str, str] = {}
    example: Any = None


class Parameter(Struct, frozen=True):
    """A parameter of the path, the query or the headers."""

    name: str
    description: str
    place: Literal["path", "query", "header"] = "path"
    schema: Schema = field(default_factory=lambda: {"type": "string"})
    example: Any = None


class Body(Struct, frozen=True):
    """JSON that a request must have. type: as in `Answer`; examples: by name, each with a summary."""

    type: Any
    examples: Mapping[str, tuple[str, Any]] = {}


class Operation(Struct, frozen=True):
    """An operation.

    route: method and path, below that of its group. answers: the one with status 200, or all by status.
    errors: statuses in the door's error format, besides those of identifying the client, of reading a body and of unknown names
    in the path. security: if not that of the group.
    """

    route: str
    id: str
    summary: str
    answers: Answer | Mapping[int, Answer]
    body: Body | None = None
    description: str = ""
    parameters: Sequence[Parameter] = ()
    errors: Sequence[int] = ()
    security: Security | None = None


class Group(Struct, frozen=True):
    """Operations with a common tag, start of the path and authorization. parameters: those of their paths."""

    tag: str
    operations: Sequence[Operation]
    path: str = ""
    parameters: Sequence[Parameter] = ()
    security: Security = OPTIONAL_TOKEN


class Door(Struct, frozen=True):
    """The operations of a door. prefix: of its schema names, so that those of two doors never collide; failure: its error format.

    tags: with their descriptions. also: more types to describe. schemas: of types unknown to msgspec, by the names that stand for
    them.
    """

    tags: Mapping[str, str]
    groups: Sequence[Group]
    failure: Any
    prefix: str = ""
    also: Sequence[Any] = ()
    schemas: Mapping[str, Schema] = {}


def document(title: str, version: str, description: str, doors: Iterable[Door]) -> Schema:
    """Return the whole document."""
    doors = list(doors)
    paths: dict[str, Schema] = {}
    schemas: dict[str, Schema] = {}
    refused = _content(Refused, partial(_schema, prefix="", schemas=schemas))
    for door in doors:
        schema = partial(_schema, prefix=door.prefix, schemas=schemas)
        schemas |= {door.prefix + name: each for name, each in door.schemas.items()}
        for type_ in door.also:
            schema(type_)
        for group in door.groups:
            for operation in group.operations:
                method, _, path = operation.route.partition(" ")
                described = _operation(operation, group, door.failure, refused, schema)
                paths.setdefault(group.path + path, {})[method.lower()] = described
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": words} for door in doors for name, words in door.tags.items()],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": SECURITY_SCHEMES},
    }


def _operation(operation: Operation, group: Group, failure: Any, refused: Schema, schema: Callable[[Any], Schema]) -> Schema:
    security = group.security if operation.security is None else operation.security
    in_path = [each for each in group.parameters if f"{{{each.name}}}" in operation.route]
    answers = operation.answers if isinstance(operation.answers, Mapping) else {200: operation.answers}
    responses = {status: _answer(answer, schema) for status, answer in answers.items()}
    errors = {
        500,
        *operation.errors,
        *(ASKER if security else ()),
        *(BODY if operation.body else ()),
        *((404,) if in_path else ()),
    }
    for status in errors - answers.keys():
        headers = _headers(_ERROR_HEADERS.get(status, {}))
        responses[status] = _answer(Answer(HTTPStatus(status).phrase, failure), schema) | headers
    for status in (421, 431):
        responses[status] = {"description": HTTPStatus(status).phrase, **refused}
    described: Schema = {"operationId": operation.id, "tags": [group.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if parameters := [*in_path, *operation.parameters]:
        described["parameters"] = [_parameter(each) for each in parameters]
    if operation.body is not None:
        sent: Schema = {"required": True, **_content(operation.body.type, schema)}
        if examples := operation.body.examples:
            sent["content"][JSON]["examples"] = {
                name: {"summary": summary, "value": value} for name, (summary, value) in examples.items()
            }
        described["requestBody"] = sent
    described["responses"] = {str(status): response for status, response in sorted(responses.items())}
    described["security"] = [dict(each) for each in security]
    return described


def _answer(answer: Answer, schema: Callable[[Any], Schema]) -> Schema:
    described: Schema = {"description": answer.description, **_headers(answer.headers)}
    if answer.type is not None:
        described |= _content(answer.type, schema)
    if answer.example is not None:
        described["content"][JSON]["example"] = answer.example
    return described


def _headers(headers: Mapping[str, str]) -> Schema:
    described = {name: {"description": words, "schema": {"type": "string"}} for name, words in headers.items()}
    return {"headers": described} if described else {}


def _parameter(parameter: Parameter) -> Schema:
    described: Schema = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": parameter.schema,
    }
    return described if parameter.example is None else described | {"example": parameter.example}


def _content(type_: Any, schema: Callable[[Any], Schema]) -> Schema:
    media = cast("dict[str, Any]", type_) if isinstance(type_, dict) else {JSON: type_}
    return {"content": {name: {"schema": schema(each)} for name, each in media.items()}}


def _schema(type_: Any, *, prefix: str, schemas: dict[str, Schema]) -> Schema:
    """Return the schema of a type, and add those that it refers to to `schemas`. type_: may be the name of one of them."""
    template = f"#/components/schemas/{prefix}{{name}}"
    if isinstance(type_, str):
        return {"$ref": template.format(name=type_)}
    (schema,), found = msgspec.json.schema_components((type_,), ref_template=template)
    for name, each in found.items():
        schemas[prefix + name] = _tidy({**each, "title": prefix + name})
    return schema


def _tidy(schema: object) -> Any:
    """Simplify a schema for client generators. Defaults that are objects are dropped (their properties have their own), and
    descriptions lose the indentation of the source.
    """
    if isinstance(schema, list):
        return [_tidy(each) for each in cast("list[object]", schema)]
    if not isinstance(schema, dict):
        return schema
    kept: Schema = {
        key: re.sub(r"\n +", "\n", value) if key == "description" and isinstance(value, str) else _tidy(value)
        for key, value in cast("dict[str, object]", schema).items()
        if not (key == "default" and isinstance(value, dict | list))
    }
    if "enum" in kept and "type" not in kept:
        kept["type"] = "string"
    if "$ref" in kept and len(kept) > 1:
        return {"allOf": [{"$ref": kept.pop("$ref")}], **kept}
    return kept
