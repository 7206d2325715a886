"""Building blocks of the OpenAPI document: each door describes its operations, and one document contains them all.

Imported on the first request for the document. Source: OpenAPI 3.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, Literal, cast

import msgspec

JSON = "application/json"
TEXT = "text/plain"
EVENTS = "text/event-stream"

Schema = dict[str, Any]
Method = Literal["get", "post", "put", "delete"]
Security = tuple[Mapping[str, list[str]], ...]

BEARER, GLOT_TOKEN, QUERY_TOKEN = "bearer", "glotToken", "queryToken"
NO_TOKEN: Security = ()
OPTIONAL_TOKEN: Security = ({}, {BEARER: []})
"""Needed only if the operator requires it (`require_login`)."""
OPERATOR_TOKEN: Security = ({}, {BEARER: []})
"""An admin's token. Without logins, programs on the server's machine need none."""

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


class RefusedDetail(msgspec.Struct, frozen=True):
    """What was wrong. code: stable, for programs."""

    code: str
    message: str
    hint: str = ""


class Refused(msgspec.Struct, frozen=True):
    """A request rejected before it reached a door: its Host header is not allowed, or its head is too large."""

    error: RefusedDetail
    message: str


@dataclass(frozen=True)
class Answer:
    """A response. type: of its content, or None; media: by media type, if there are several or it is no JSON."""

    description: str
    type: Any = None
    media: Mapping[str, Any] = field(default_factory=dict[str, Any])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    example: Any = None


@dataclass(frozen=True)
class Parameter:
    """A parameter of the path, the query or the headers."""

    name: str
    description: str
    place: Literal["path", "query", "header"] = "path"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    example: Any = None


@dataclass(frozen=True)
class Operation:
    """An operation. errors: statuses answered in the door's error format; body: type of the request's JSON."""

    method: Method
    path: str
    id: str
    tag: str
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: Sequence[Parameter] = ()
    body: Any = None
    body_required: bool = True
    examples: Mapping[str, tuple[str, Any]] = field(default_factory=dict[str, tuple[str, Any]])
    errors: Sequence[int] = ()
    security: Security = OPTIONAL_TOKEN


@dataclass(frozen=True)
class Door:
    """The operations of a door. prefix: of its schema names, so that those of two doors never collide; failure: its error format.

    schemas: of types unknown to msgspec, by the names that `Named` refers to.
    """

    tags: Mapping[str, str]
    operations: Sequence[Operation]
    failure: Any
    prefix: str = ""
    also: Sequence[Any] = ()
    schemas: Mapping[str, Schema] = field(default_factory=dict[str, Schema])


@dataclass(frozen=True)
class Named:
    """A reference to a schema that is not generated from a type."""

    name: str


def document(title: str, version: str, description: str, doors: Iterable[Door]) -> Schema:
    """Return the whole document."""
    doors = list(doors)
    paths: dict[str, Schema] = {}
    schemas: dict[str, Schema] = _components((Refused,), "")
    for door in doors:
        schemas |= _schemas(door)
        for operation in door.operations:
            paths.setdefault(operation.path, {})[operation.method] = _operation(operation, door)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": description, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": words} for door in doors for name, words in door.tags.items()],
        "paths": paths,
        "components": {"schemas": dict(sorted(schemas.items())), "securitySchemes": SECURITY_SCHEMES},
    }


def _operation(operation: Operation, door: Door) -> Schema:
    content = partial(_content, door=door)
    responses = {str(status): _answer(answer, door) for status, answer in operation.answers.items()}
    for status in sorted({*operation.errors, 500}):
        known = responses.get(str(status))
        if known is None:
            responses[str(status)] = {
                "description": HTTPStatus(status).phrase,
                "content": content({JSON: door.failure}),
                **({"headers": _headers(_ERROR_HEADERS[status])} if status in _ERROR_HEADERS else {}),
            }
    for status in (421, 431):
        phrase = HTTPStatus(status).phrase
        responses[str(status)] = {"description": phrase, "content": {JSON: {"schema": _reference("Refused")}}}
    described: Schema = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = [_parameter(each) for each in operation.parameters]
    if operation.body is not None:
        sent = content({JSON: operation.body})
        if operation.examples:
            sent[JSON]["examples"] = {
                name: {"summary": summary, "value": value} for name, (summary, value) in operation.examples.items()
            }
        described["requestBody"] = {"required": operation.body_required, "content": sent}
    described["responses"] = dict(sorted(responses.items()))
    described["security"] = [dict(each) for each in operation.security]
    return described


_ERROR_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"WWW-Authenticate": "How to authenticate."},
    429: {"Retry-After": "Seconds to wait before a retry."},
    503: {"Retry-After": "Seconds to wait before a retry."},
}


def _answer(answer: Answer, door: Door) -> Schema:
    media = answer.media or ({JSON: answer.type} if answer.type is not None else {})
    described: Schema = {"description": answer.description}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    if media:
        described["content"] = _content(media, door)
        if answer.example is not None:
            described["content"][JSON]["example"] = answer.example
    return described


def _headers(headers: Mapping[str, str]) -> Schema:
    return {name: {"description": words, "schema": {"type": "string"}} for name, words in headers.items()}


def _parameter(parameter: Parameter) -> Schema:
    described: Schema = {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.place == "path",
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _content(media: Mapping[str, Any], door: Door) -> Schema:
    return {name: {"schema": _schema(type_, door)} for name, type_ in media.items()}


def _schema(type_: Any, door: Door) -> Schema:
    if isinstance(type_, Named):
        return _reference(door.prefix + type_.name)
    if type_ is str:
        return {"type": "string"}
    (schema,), _ = msgspec.json.schema_components((type_,), ref_template=_template(door.prefix))
    return schema


def _schemas(door: Door) -> dict[str, Schema]:
    found: list[Any] = [door.failure, *door.also]
    for operation in door.operations:
        found.append(operation.body)
        for answer in operation.answers.values():
            found += [answer.type, *answer.media.values()]
    types = [type_ for type_ in found if type_ is not None and type_ is not str and not isinstance(type_, Named)]
    return _components(types, door.prefix) | {door.prefix + name: schema for name, schema in door.schemas.items()}


def _components(types: Iterable[Any], prefix: str) -> dict[str, Schema]:
    _, schemas = msgspec.json.schema_components(tuple(types), ref_template=_template(prefix))
    return {prefix + name: _tidy({**schema, "title": prefix + name}) for name, schema in schemas.items()}


def _tidy(schema: object) -> Any:
    """Simplify a schema for client generators.

    Defaults that are objects are dropped (their properties have their own), and descriptions lose the indentation of the source.
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


def _reference(name: str) -> Schema:
    return {"$ref": _template("").format(name=name)}


def _template(prefix: str) -> str:
    return "#/components/schemas/" + prefix + "{name}"
