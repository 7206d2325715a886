"""How much a JSON text holds, counted before it is parsed.

A parser makes objects of many times the size of the text: eight million empty strings fit into 20 MB. So commas and opening
brackets are counted first, those outside of strings: each value follows one of them. It takes no memory and is done piece by
piece as a body arrives, so that a text that holds too much is refused before all of it is here.
"""

from __future__ import annotations

import asyncio
from typing import NewType

from firebox.domain.errors import InvalidRequest

MAX_VALUES = 32_768
"""Keys and what is below them, elements, everything. 5,000 files with name, content and encoding are 20,001 values."""
MAX_LITERAL_BYTES = 256 * 1024
"""Digits of numbers, and everything else outside of strings that is neither a bracket, a comma, a colon nor a space."""
PIECE_BYTES = 256 * 1024
"""What is counted in one go, in up to 4 ms."""

Checked = NewType("Checked", bytes)
"""A JSON text that holds no more than may be parsed. Whether it is JSON at all is still to be seen."""

_NO_LITERALS = b" \t\r\n,:[]{}"


class Meter:
    """Counts a text that comes in pieces. A text that is shorter than `MAX_VALUES` need not be counted."""

    def __init__(self) -> None:
        self._in_string = False
        self._carried = b""
        """A backslash at the end of a piece: it belongs to what comes next."""
        self.values = 1
        self._literal_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Count a piece. Raises: InvalidRequest once there is too much."""
        for start in range(0, len(piece), PIECE_BYTES):
            self._count(piece[start : start + PIECE_BYTES])

    def _count(self, piece: bytes) -> None:
        piece = self._carried + piece
        backslashes = len(piece) - len(piece.rstrip(b"\\"))
        self._carried = b"\\" if backslashes % 2 else b""
        if self._carried:
            piece = piece[:-1]
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        parts = piece.split(b'"')
        outside = b"".join(parts[self._in_string :: 2])
        self._in_string ^= len(parts) % 2 == 0
        self.values += outside.count(b",") + outside.count(b"[") + outside.count(b"{")
        if self.values > MAX_VALUES:
            raise InvalidRequest(f"the JSON holds more than {MAX_VALUES} values")
        self._literal_bytes += len(outside.translate(None, _NO_LITERALS))
        if self._literal_bytes > MAX_LITERAL_BYTES:
            raise InvalidRequest(f"the JSON holds more than {MAX_LITERAL_BYTES} bytes of numbers and words outside of strings")


def check(text: bytes | str) -> Checked:
    """Check a whole text at once; for long ones there is `check_in_turns`. Raises: InvalidRequest."""
    checked = _as_bytes(text)
    if len(checked) >= MAX_VALUES:
        Meter().feed(checked)
    return Checked(checked)


async def check_in_turns(text: bytes | str) -> Checked:
    """Check a whole text, with a turn for others after each piece. Raises: InvalidRequest."""
    checked = _as_bytes(text)
    if len(checked) >= MAX_VALUES:
        meter = Meter()
        for start in range(0, len(checked), PIECE_BYTES):
            meter.feed(checked[start : start + PIECE_BYTES])
            await asyncio.sleep(0)
    return Checked(checked)


def _as_bytes(text: bytes | str) -> bytes:
    try:
        return text if isinstance(text, bytes) else text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the text is not Unicode") from None
