"""Limits on the number of values in a JSON text, checked before it is parsed.

Parsed JSON takes many times the size of its text: 20 MB hold eight million empty strings. So commas and opening brackets outside
of strings are counted first: a value follows each of them. This takes no memory and works piece by piece as a body arrives, so an
excessive text is rejected before all of it is received.
"""

from __future__ import annotations

import asyncio
from typing import NewType

from firebox.domain.errors import InvalidRequest

MAX_VALUES = 32_768
"""Counts keys and values of every kind. 5,000 files with name, content and encoding are 20,001 values."""
MAX_LITERAL_BYTES = 256 * 1024
"""Counts characters outside of strings that are no bracket, comma, colon or space: digits of numbers, mostly."""
PIECE_BYTES = 256 * 1024
"""How much is scanned at once, in up to 4 ms."""

Checked = NewType("Checked", bytes)
"""A JSON text within the limits. It may still be invalid JSON."""

_NO_LITERALS = b" \t\r\n,:[]{}"


class Meter:
    """Counts the values of a text that arrives in pieces. A text shorter than `MAX_VALUES` need not be counted."""

    def __init__(self) -> None:
        self._in_string = False
        self._carried = b""
        """A trailing backslash: it belongs to the next piece."""
        self.values = 1
        self._literal_bytes = 0

    def feed(self, piece: bytes) -> None:
        """Count a piece. Raises: InvalidRequest beyond a limit."""
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
    """Check a whole short text; use `check_in_turns` for long ones. Raises: InvalidRequest."""
    checked = _as_bytes(text)
    if len(checked) >= MAX_VALUES:
        Meter().feed(checked)
    return Checked(checked)


async def check_in_turns(text: bytes | str) -> Checked:
    """Check a whole text, yielding to other tasks after each piece. Raises: InvalidRequest."""
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
