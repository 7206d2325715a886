"""The output of a stage: capped, in arrival order, in little memory whatever the program does."""

from __future__ import annotations

from firebox.domain.model import Chunk, StreamName
from firebox.sandbox.spec import Exit

SWITCHES_KEPT = 10_000
"""Past so many changes between the streams the order of the rest is kept within each stream only."""


class Transcript:
    """Collects output; neighbours of one stream are one chunk, so a million one-byte writes are not a million objects.

    max_bytes: kept of each stream.
    """

    def __init__(self, max_bytes: int) -> None:
        self._room: dict[StreamName, int] = {"stdout": max_bytes, "stderr": max_bytes}
        self._chunks: list[tuple[StreamName, bytearray]] = []
        self._last: dict[StreamName, bytearray] = {}
        self._truncated: set[StreamName] = set()

    def add(self, stream: StreamName, data: bytes) -> bytes:
        """Add output. Returns what was kept of it."""
        room = self._room[stream]
        if len(data) > room:
            self._truncated.add(stream)
            data = data[:room]
        if not data:
            return data
        self._room[stream] = room - len(data)
        last = self._last.get(stream)
        is_neighbour = last is not None and self._chunks[-1][1] is last
        if last is not None and (is_neighbour or len(self._chunks) >= SWITCHES_KEPT):
            last += data
        else:
            self._last[stream] = bytearray(data)
            self._chunks.append((stream, self._last[stream]))
        return data

    def mark(self, ended: Exit) -> Exit:
        """Note in a stage's end which streams were cut."""
        if not self._truncated:
            return ended
        return ended._replace(stdout_truncated="stdout" in self._truncated, stderr_truncated="stderr" in self._truncated)

    def chunks(self) -> tuple[Chunk, ...]:
        return tuple(Chunk(stream, bytes(data)) for stream, data in self._chunks)
