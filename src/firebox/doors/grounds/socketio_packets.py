"""Socket.IO packets, which Engine.IO carries as text: parse strictly and serialize, no I/O.

A packet is a digit, its type, `N-` for N attachments, `/namespace,`, an acknowledgement number and JSON. Clients of versions 1
and 2 (on Engine.IO 3) are in the namespace `/` from the start; later ones (on Engine.IO 4) ask to join it and may send
credentials.

Source: Socket.IO protocol revisions 4 and 5, "Packet encoding".
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple, cast

import msgspec

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds.engineio_packets import MESSAGE, Revision
from firebox.doors.http.json_body import parse
from firebox.doors.http.json_size import check

CONNECT, DISCONNECT, EVENT, ACK, ERROR, BINARY_EVENT, BINARY_ACK = "0123456"
NAMESPACE = "/"
"""The only one that is served."""
ATTACHMENTS = 10

_PACKET = re.compile(
    r"(?P<type>[0-6])"
    r"(?:(?P<attachments>[0-9]{1,2})-)?"
    r"(?:(?P<namespace>/[!-+\--~]{0,200})(?:,|\Z))?"
    r"(?P<ack>[0-9]{1,15})?"
    r"(?P<data>[\[{].*)?",
    re.DOTALL,
)
_RESERVED = {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
"""Source: Socket.IO documentation, "Emit cheatsheet", "Reserved events"."""


class SocketPacket(NamedTuple):
    """A packet as a client sent it.

    ack: number of the acknowledgement to send, "" for none. data: arguments of an event, the name first;
    credentials or None of `CONNECT`. attachments: binary packets that follow.
    """

    type: str
    namespace: str
    ack: str
    data: object
    attachments: int


def decode(text: str) -> SocketPacket:
    """Parse a packet. Binary data of events is replaced by placeholders. Raises: InvalidRequest."""
    found = _PACKET.fullmatch(text)
    if found is None:
        raise InvalidRequest("not a packet of Socket.IO")
    kind, data = found["type"], found["data"]
    attachments = int(found["attachments"] or 0)
    if attachments > (ATTACHMENTS if kind in {BINARY_EVENT, BINARY_ACK} else 0):
        raise InvalidRequest("too many attachments")
    document: object = None
    match kind:
        case "0":
            document = parse(check(data)) if data else None
            if not isinstance(document, dict | None):
                raise InvalidRequest("credentials that are not an object")
        case "2" | "5":
            kind, document = EVENT, parse(check(data or "null"))
            _check_event(document)
        case "4":
            raise InvalidRequest("not a packet of Socket.IO that a client sends")
        case _:
            pass  # acknowledgements answer nothing that was sent
    namespace = (found["namespace"] or NAMESPACE).partition("?")[0]
    return SocketPacket(kind, namespace, found["ack"] or "", document, attachments)


def encode_event(arguments: tuple[Any, ...], revision: Revision) -> str:
    """Serialize an event. arguments: its name and what msgspec can encode."""
    return MESSAGE + EVENT + _encode_json(arguments, revision)


def encode_ack(number: str) -> str:
    """Serialize the acknowledgement of an event."""
    return f"{MESSAGE}{ACK}{number}[]"


def encode_connected(identifier: str, revision: Revision) -> str:
    """Serialize the response to a client that has joined."""
    return MESSAGE + CONNECT + (_encode_json({"sid": identifier}, revision) if revision == 4 else "")


def encode_refused(namespace: str, words: str, revision: Revision) -> str:
    """Serialize the response to a client that may not join."""
    place = "" if namespace == NAMESPACE else f"{namespace},"
    return MESSAGE + ERROR + place + _encode_json({"message": words} if revision == 4 else words, revision)


def _encode_json(value: object, revision: Revision) -> str:
    """Serialize a value, in ASCII for revision 3: see `engineio_packets`."""
    if revision == 4:
        return msgspec.json.encode(value).decode()
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def _check_event(document: object) -> None:
    if not isinstance(document, list) or not document:
        raise InvalidRequest("an event without a name")
    name = cast("list[object]", document)[0]
    if not isinstance(name, str) or name in _RESERVED:
        raise InvalidRequest("an event with a name that is not allowed")
