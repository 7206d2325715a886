"""Runner's wire format: gRPC statuses of errors, and the gateway's JSON of messages and errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, unquote_to_bytes

import msgspec

from firebox.domain import errors
from firebox.doors.http import json_body, json_size, refusals, status
from firebox.doors.http.output import LARGE_BYTES, Pieces
from firebox.service.validation import encode_text

if TYPE_CHECKING:  # protobuf is loaded with the first call
    from google.protobuf.message import Message

M = TypeVar("M", bound="Message")

MESSAGE_BYTES = 4096
"""Limit on a status message, percent-encoded: clients reject larger response headers.
Source: gRPC over HTTP/2, "Percent-Encoded"; the usual limit is 8 KiB for everything."""

INT64 = range(-(2**63), 2**63)
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}")


class Status(IntEnum):
    """gRPC's statuses, by name and number, each with its HTTP status. Source: gRPC core, doc/statuscodes.md; google.rpc.Code,
    "HTTP Mapping"; grpc-gateway, HTTPStatusFromCode.
    """

    http: int

    def __new__(cls, number: int, http: int) -> Self:
        member = int.__new__(cls, number)
        member._value_ = number
        member.http = http
        return member

    OK = 0, 200
    CANCELLED = 1, 499
    UNKNOWN = 2, 500
    INVALID_ARGUMENT = 3, 400
    DEADLINE_EXCEEDED = 4, 504
    NOT_FOUND = 5, 404
    ALREADY_EXISTS = 6, 409
    PERMISSION_DENIED = 7, 403
    RESOURCE_EXHAUSTED = 8, 429
    FAILED_PRECONDITION = 9, 400
    ABORTED = 10, 409
    OUT_OF_RANGE = 11, 400
    UNIMPLEMENTED = 12, 501
    INTERNAL = 13, 500
    UNAVAILABLE = 14, 503
    DATA_LOSS = 15, 500
    UNAUTHENTICATED = 16, 401


class NotAdmin(errors.Forbidden):
    """A user who is not an admin tried to delete something. Runner answers such a call with "cancelled"."""

    def __init__(self) -> None:
        super().__init__("forbidden")


_STATUS_OF_HTTP = {
    400: Status.INVALID_ARGUMENT,
    401: Status.UNAUTHENTICATED,
    403: Status.PERMISSION_DENIED,
    404: Status.NOT_FOUND,
    408: Status.DEADLINE_EXCEEDED,
    409: Status.FAILED_PRECONDITION,
    413: Status.RESOURCE_EXHAUSTED,
    415: Status.INVALID_ARGUMENT,
    422: Status.INTERNAL,
    429: Status.RESOURCE_EXHAUSTED,
    499: Status.CANCELLED,
    500: Status.INTERNAL,
    502: Status.UNAVAILABLE,
    503: Status.UNAVAILABLE,
}

STATUS: Mapping[type[errors.FireboxError], Status] = {
    **{class_: _STATUS_OF_HTTP[http] for class_, http in status.STATUS.items()},
    NotAdmin: Status.CANCELLED,
    errors.LimitNotEnforceable: Status.FAILED_PRECONDITION,
    errors.WrongChecksum: Status.INTERNAL,
    errors.NotTrusted: Status.INTERNAL,
    errors.DependencyConflict: Status.INTERNAL,
}
"""gRPC status of every error; a test walks the classes."""


def from_error(error: errors.FireboxError) -> tuple[Status, str]:
    """Return the gRPC status and the message for an error."""
    found = next(STATUS[class_] for class_ in type(error).__mro__ if class_ in STATUS)
    where = f"{error.where}: " if isinstance(error, errors.InvalidRequest) and error.where else ""
    hint = f" ({error.hint})" if error.hint else ""
    return found, cut(f"{where}{error.message}{hint}")


def http_status(error: errors.FireboxError) -> int:
    """Return the gateway's HTTP status: that of the gRPC status, or of HTTP for a request that never became a call."""
    return error.status if isinstance(error, refusals.TransportError) else from_error(error)[0].http


def cut(message: str) -> str:
    """Shorten a message to `MESSAGE_BYTES`, percent-encoded."""
    if len(message) * 12 <= MESSAGE_BYTES:
        return message
    quoted = quote(message[: MESSAGE_BYTES + 1], safe=_UNQUOTED)
    if len(quoted) <= MESSAGE_BYTES:
        return message
    whole_bytes = re.sub("%.?$", "", quoted[: MESSAGE_BYTES - len("...")])
    return unquote_to_bytes(whole_bytes).decode(errors="ignore") + "..."


_UNQUOTED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


async def to_json(message: Message, pieces: Pieces) -> bytes:
    """Encode a message in proto3's JSON mapping: 64-bit numbers as strings, defaults included. pieces: receive long texts."""
    from google.protobuf import json_format

    fields = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    written: dict[str, object] = {}
    for field in message.DESCRIPTOR.fields:
        value = fields[field.json_name]
        written[field.json_name] = await pieces.text(value) if isinstance(value, str) else value
    return msgspec.json.encode(written)


def from_json(body: json_size.Checked, type_: type[M]) -> M:
    """Decode a message. An empty body is an empty one, and unknown keys are ignored, as in Runner. Raises: InvalidRequest."""
    from google.protobuf import json_format

    fields = json_body.parse_object(body) if body.strip() else {}
    message = type_()
    _set_long_texts(message, fields)
    try:
        return json_format.ParseDict(fields, message, ignore_unknown_fields=True)
    except json_format.ParseError as error:
        raise errors.InvalidRequest(str(error)) from None


def _set_long_texts(message: Message, fields: dict[str, Any]) -> None:
    """Copy long texts from a parsed document into a message: the library would scan them for lone surrogates, 30 ms per megabyte.
    Raises: InvalidRequest for a lone surrogate.
    """
    for field in message.DESCRIPTOR.fields:
        value = fields.get(field.json_name)
        if field.type == field.TYPE_STRING and isinstance(value, str) and len(value) > LARGE_BYTES:
            encode_text(value, where=field.json_name)
            setattr(message, field.name, fields.pop(field.json_name))


def read_int64(text: str, *, where: str) -> int:
    """Parse a number in a path or a query. Raises: InvalidRequest."""
    if not _NUMBER.fullmatch(text) or int(text) not in INT64:
        raise errors.InvalidRequest(f"{text[:64]!r} is not a 64-bit integer", where=where)
    return int(text)
