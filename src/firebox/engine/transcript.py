"""What a stage wrote, in arrival order, in little memory whatever the program does."""

from __future__ import annotations

from firebox.domain.model import Chunk, StreamName

SWITCHES_KEPT = 10_000
"""Past so many changes between the streams the order of the rest is kept within each stream only."""


class Transcript:
    """Collects output; neighbours of one stream are one chunk, so a million one-byte writes are not a million objects."""

    def __init__(self) -> None:
        self._chunks: list[tuple[StreamName, bytearray]] = []
        self._last: dict[StreamName, bytearray] = {}

    def add(self, stream: StreamName, data: bytes) -> None:
        last = self._last.get(stream)
        is_neighbour = last is not None and self._chunks[-1][1] is last
        if last is not None and (is_neighbour or len(self._chunks) >= SWITCHES_KEPT):
            last += data
            return
        self._last[stream] = bytearray(data)
        self._chunks.append((stream, self._last[stream]))

    def chunks(self) -> tuple[Chunk, ...]:
        return tuple(Chunk(stream, bytes(data)) for stream, data in self._chunks)
