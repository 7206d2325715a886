"""Input of an interactive run: queued from admission on, in order, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from firebox.domain.model import Eof, Stdin

if TYPE_CHECKING:
    from firebox.engine.backends.backend import Stage

INPUT_BYTES = 2 << 20
"""How much input of a run may be queued. Doors receive nothing more beyond it, and then notice no disconnect either."""
MESSAGE_BYTES = 64
"""Memory of a message besides its data, so that empty ones are bounded too."""


class InputQueue:
    """The queue between `Run.send` and the stdin of a stage. first: comes before everything else."""

    def __init__(self, first: bytes = b"") -> None:
        self._waiting: deque[Stdin | Eof] = deque([Stdin(first)] if first else [])
        self._waiting_bytes = sum(map(_size_bytes, self._waiting))
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._complete = False

    async def put(self, message: Stdin | Eof) -> None:
        """Queue a message, then wait while more than `INPUT_BYTES` are queued. Ignored after `Eof` and once closed."""
        if self._complete:
            return
        self._complete = isinstance(message, Eof)
        self._waiting.append(message)
        self._waiting_bytes += _size_bytes(message)
        self._arrived.set()
        while self._waiting_bytes > INPUT_BYTES:
            self._has_room.clear()
            await self._has_room.wait()

    async def feed(self, stage: Stage) -> None:
        """Write everything to a stage's stdin, until the end of input or cancellation."""
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            message = self._waiting.popleft()
            if isinstance(message, Eof):
                stage.close_stdin()
                return
            await stage.write_stdin(message.data)
            self._waiting_bytes -= _size_bytes(message)
            self._has_room.set()

    def close(self) -> None:
        """Drop what is queued and release senders: the program has ended."""
        self._complete = True
        self._waiting.clear()
        self._waiting_bytes = 0
        self._has_room.set()


def _size_bytes(message: Stdin | Eof) -> int:
    return MESSAGE_BYTES + (len(message.data) if isinstance(message, Stdin) else 0)
