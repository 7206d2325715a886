"""A client that writes HTTP/2 frames by hand, including invalid ones. Source: RFC 9113, RFC 7541."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from typing import Self

from firebox.doors.runner.guard import PREFACE

DATA, HEADERS, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x8, 0x9
END_STREAM, END_HEADERS = 0x1, 0x4
WITHOUT_TABLE = b"\0\1\0\0\0\0"
"""The setting that has the server write every field in full: what is read here needs no table."""
RUN = b"/runner.Runner/RunCode"


class Connection:
    """A connection from an address of this machine: all of 127.0.0.0/8."""

    def __init__(self, place: str, source: str = "127.0.0.1", begin: bytes = b"") -> None:
        host, port = place.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0))
        self._received = b""
        self.send(begin or PREFACE + frame(SETTINGS, 0, 0, WITHOUT_TABLE))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Yield type, stream and payload of each frame until the server closes the connection."""
        while True:
            while len(self._received) >= 9 and len(self._received) >= 9 + (size := int.from_bytes(self._received[:3])):
                found, self._received = self._received[: 9 + size], self._received[9 + size :]
                yield found[3], int.from_bytes(found[5:9]), found[9:]
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError:
                return
            if not data:
                return
            self._received += data

    def ends(self) -> Iterator[tuple[int, int, str]]:
        """Yield stream, status and message of each call that ends. Headers are not compressed."""
        for kind, stream, content in self.frames():
            if kind == HEADERS and (status := re.search(rb"grpc-status.(\d+)", content, re.DOTALL)):
                words = re.search(rb"grpc-message.([^@\x00]*)", content, re.DOTALL)
                yield stream, int(status[1]), words[1].decode("latin-1") if words else ""

    def is_closed_by(self, data: bytes, times: int) -> bool:
        """Send something repeatedly. Return whether the server closes the connection."""
        try:
            for _ in range(times):
                self.send(data)
            for _ in self.frames():
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + content


def field(name: bytes, value: bytes, *, remembered: bool = False) -> bytes:
    """A header field, literal or added to the dynamic table."""
    return (b"\x40" if remembered else b"\x00") + _length(name) + name + _length(value) + value


def head(path: bytes = RUN, more: bytes = b"") -> bytes:
    """The headers of a call."""
    return (
        field(b":method", b"POST")
        + field(b":scheme", b"http")
        + field(b":path", path)
        + field(b":authority", b"localhost")
        + field(b"content-type", b"application/grpc")
        + field(b"te", b"trailers")
        + more
    )


def call(stream: int, message: bytes | None = None, path: bytes = RUN, more: bytes = b"") -> bytes:
    """A call: its headers, in as many frames as needed, and optionally its message."""
    packed = head(path, more)
    parts = [packed[start : start + 16000] for start in range(0, len(packed), 16000)]
    last = len(parts) - 1
    sent = b"".join(
        frame(CONTINUATION if index else HEADERS, END_HEADERS if index == last else 0, stream, part)
        for index, part in enumerate(parts)
    )
    if message is not None:
        sent += frame(DATA, END_STREAM, stream, b"\0" + len(message).to_bytes(4) + message)
    return sent


def _length(data: bytes) -> bytes:
    size = len(data)
    if size < 127:
        return bytes([size])
    packed, size = b"\x7f", size - 127
    while size >= 128:
        packed, size = packed + bytes([size % 128 + 128]), size // 128
    return packed + bytes([size])
