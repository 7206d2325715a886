r"""Engine.IO packets and polling payloads of protocol revisions 3 and 4: parse and serialize, no I/O.

A packet is a digit, its type, and text; binary data is a packet without a type. One WebSocket message carries one packet.
A polling payload carries several:

| revision | text payload                                            | binary payload                                      |
| -------- | ------------------------------------------------------- | --------------------------------------------------- |
| 4        | packets separated by U+001E, binary data as `b`, base64 | none                                                |
| 3        | `LENGTH:PACKET`, repeated, binary data as `b4`, base64  | bytes 0 (text) or 1, digits, 255 and data, repeated |

A length of revision 3 counts UTF-16 code units, as JavaScript does. Clients of version 1 encode the text of each packet as UTF-8
and send every byte as a character; those of version 2 do not, and the two cannot be told apart. So only ASCII is sent to either,
and text from them whose characters are the bytes of UTF-8 is decoded once more.

Source: Engine.IO protocol, revisions 3 and 4; engine.io-parser 1.3 and 2.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Literal, NamedTuple

from firebox.domain.errors import InvalidRequest

Revision = Literal[3, 4]

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"
BINARY = "b"
PROBE = "probe"
"""Text of the ping and pong that test a WebSocket before an upgrade."""

PACKET_CHARACTERS = 1_000_000
"""More than the longest program takes with every character written as two JSON escapes."""
PACKETS_PER_PAYLOAD = 64
"""A client that polls sends several events at once."""

_SEPARATOR = "\x1e"
_LENGTH_DIGITS = 7
_LENGTH = re.compile(rf"([0-9]{{1,{_LENGTH_DIGITS}}}):")
_END_OF_LENGTH = 255
_NOT_A_PAYLOAD = "not a payload of Engine.IO"


class EnginePacket(NamedTuple):
    """A packet as a client sent it. type: a digit, or `BINARY`, whose data is dropped: no event here takes any."""

    type: str
    text: str = ""


def decode_packet(frame: str | bytes) -> EnginePacket:
    """Parse a WebSocket message. Raises: InvalidRequest."""
    if len(frame) > PACKET_CHARACTERS:
        raise InvalidRequest("the packet is too large")
    if isinstance(frame, bytes) or frame[:1] == BINARY:
        return EnginePacket(BINARY)
    return EnginePacket(frame[:1], frame[1:])


def decode_payload(body: bytes, revision: Revision, *, is_binary: bool = False) -> list[EnginePacket]:
    """Parse the body of a POST. is_binary: by its content type. Raises: InvalidRequest."""
    pieces = _split(body, revision, is_binary=is_binary)
    packets = [decode_packet(packet) for packet in islice(pieces, PACKETS_PER_PAYLOAD)]
    if next(pieces, None) is not None:
        raise InvalidRequest("too many packets")
    if not packets:
        raise InvalidRequest(_NOT_A_PAYLOAD)
    return packets


def encode_payload(packets: Iterable[str], revision: Revision) -> bytes:
    """Serialize the answer to a poll. packets: ASCII for revision 3."""
    if revision == 4:
        return _SEPARATOR.join(packets).encode()
    return "".join(f"{len(packet)}:{packet}" for packet in packets).encode("ascii")


def _split(body: bytes, revision: Revision, *, is_binary: bool) -> Iterator[str | bytes]:
    try:
        if revision == 4:
            yield from body.decode().split(_SEPARATOR, PACKETS_PER_PAYLOAD)
        elif is_binary:
            yield from _split_bytes(body)
        else:
            yield from _split_text(body.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("the body is not UTF-8") from None


def _split_text(text: str) -> Iterator[str]:
    units = text.encode("utf-16-le")
    at = 0
    while at < len(units):
        length = _LENGTH.match(units[at : at + 2 * (_LENGTH_DIGITS + 1)].decode("utf-16-le", "replace"))
        if length is None:
            raise InvalidRequest(_NOT_A_PAYLOAD)
        start = at + 2 * length.end()
        at = start + 2 * int(length[1])
        if at > len(units):
            raise InvalidRequest(_NOT_A_PAYLOAD)
        yield _without_second_encoding(units[start:at].decode("utf-16-le"))


def _split_bytes(body: bytes) -> Iterator[str | bytes]:
    at = 0
    while at < len(body):
        digits, found, _ = body[at + 1 : at + 2 + _LENGTH_DIGITS].partition(bytes([_END_OF_LENGTH]))
        if body[at] > 1 or not digits or not found or max(digits) > 9:
            raise InvalidRequest(_NOT_A_PAYLOAD)
        start = at + 2 + len(digits)
        end = start + int("".join(map(str, digits)))
        if end > len(body):
            raise InvalidRequest(_NOT_A_PAYLOAD)
        yield body[start:end] if body[at] else body[start:end].decode()
        at = end


def _without_second_encoding(packet: str) -> str:
    """Undo the encoding of clients of version 1. Text that is not UTF-8 read as Latin-1 is returned as it is."""
    if packet.isascii():
        return packet
    try:
        return packet.encode("latin-1").decode()
    except UnicodeError:
        return packet
