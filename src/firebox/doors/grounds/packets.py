"""Packets as a client may send them, read strictly before the library sees them.

The library takes a client's word for more than it should: an event named "connect" runs the handler of connections, a
packet may announce ten thousand million attachments, malformed ones end in tracebacks. So each packet is either of the
form below, in which the library does with it what the protocol says, or the connection is closed.

Engine.IO: `1` close, `3` pong, `4` message; Socket.IO, inside a message: a type, `N-` for N attachments, `/namespace,`, an
acknowledgement number, JSON.

Source: Engine.IO protocol revision 4 and Socket.IO protocol revision 5, "Packet encoding".
"""

from __future__ import annotations

import re
from typing import cast

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds.rate_limit import Bucket, Clock
from firebox.doors.http.json_body import parse
from firebox.doors.http.json_size import check

PACKET_CHARACTERS = 1_000_000
"""The longest program with every character written as two JSON escapes, and more than enough around it."""
ATTACHMENTS = 10
CONNECTS = 10
"""How often one connection may join a namespace; each time its token is looked up."""
PACKETS_A_SECOND = 50
PACKETS_AT_ONCE = 200

_MESSAGE = re.compile(
    r"(?P<type>[0-6])"
    r"(?:(?P<attachments>[0-9]{1,2})-)?"
    r"(?P<place>(?:/[^,]{0,200}(?:,|\Z))?(?:[0-9]{1,15})?)"
    r"(?P<data>[\[{].*)?",
    re.DOTALL,
)
_CONNECT, _DISCONNECT, _EVENT, _ACK, _CONNECT_ERROR, _BINARY_EVENT, _BINARY_ACK = "0123456"
_RESERVED = {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
"""Source: Socket.IO documentation, "Emit cheatsheet", "Reserved events"."""


class PacketReader:
    """Reads what one connection sends, in order."""

    def __init__(self, clock: Clock) -> None:
        self._bucket = Bucket(PACKETS_A_SECOND, PACKETS_AT_ONCE, clock)
        self._attachments = 0
        self._connects = 0

    def read(self, packet: str) -> str | None:
        """Return a packet as the library is to get it; None for one that it has no use for.

        An event with binary data becomes one with placeholders in its place: who answers it says what is wrong with it.
        Raises: InvalidRequest.
        """
        if not self._bucket.take():
            raise InvalidRequest("too many packets")
        if packet[:1] == "b":
            self.read_attachment()
            return None
        if self._attachments:
            raise InvalidRequest("an attachment is missing")
        if packet in {"1", "3"}:
            return packet
        if packet[:1] != "4":
            raise InvalidRequest("not a packet of Engine.IO 4 that a client sends")
        message = self._read_message(packet[1:])
        return message and "4" + message

    def read_attachment(self) -> None:
        """Drop binary data. Raises: InvalidRequest for data that nothing has announced."""
        if not self._attachments:
            raise InvalidRequest("binary data that belongs to no event")
        self._attachments -= 1

    def _read_message(self, message: str) -> str | None:
        found = _MESSAGE.fullmatch(message)
        if found is None:
            raise InvalidRequest("not a packet of Socket.IO 5")
        kind, place, data = found["type"], found["place"], found["data"]
        is_binary = kind in {_BINARY_EVENT, _BINARY_ACK}
        attachments = int(found["attachments"] or 0)
        if attachments > (ATTACHMENTS if is_binary else 0):
            raise InvalidRequest("too many attachments")
        document = parse(check(data)) if data and kind not in {_ACK, _BINARY_ACK} else None
        match kind:
            case "0":
                self._connects += 1
                if self._connects > CONNECTS:
                    raise InvalidRequest("too many attempts to connect")
                if data and not isinstance(document, dict):
                    raise InvalidRequest("credentials that are not an object")
                return kind + place + (data or "")
            case "1":
                return kind + place
            case "2" | "5":
                _check_event(document)
                self._attachments = attachments
                return _EVENT + place + (data or "")
            case "3" | "6":
                # Nothing was sent that is to be acknowledged.
                self._attachments = attachments
                return None
            case _:
                raise InvalidRequest("not a packet of Socket.IO that a client sends")


def _check_event(document: object) -> None:
    if not isinstance(document, list) or not document:
        raise InvalidRequest("an event without a name")
    name = cast("list[object]", document)[0]
    if not isinstance(name, str) or name in _RESERVED:
        raise InvalidRequest("an event with a name that is not allowed")
