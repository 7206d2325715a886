"""Input of an interactive run: queued from admission on, in order, bounded. And the clock that ends a run without any."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
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


class IdleClock:
    """Calls `expired` once nothing has happened for `idle_ms`; never with 0. Has one timer, however much happens."""

    def __init__(self, idle_ms: int, expired: Callable[[], None]) -> None:
        self._idle_s = idle_ms / 1000
        self._expired = expired
        self._timer: asyncio.TimerHandle | None = None
        self._last_s = 0.0
        self.is_over = False

    def start(self) -> None:
        if self._idle_s:
            self._last_s = asyncio.get_running_loop().time()
            self._wait(self._idle_s)

    def touch(self) -> None:
        """Note that something has happened."""
        if self._timer is not None:
            self._last_s = asyncio.get_running_loop().time()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._look)

    def _look(self) -> None:
        remaining_s = self._last_s + self._idle_s - asyncio.get_running_loop().time()
        if remaining_s > 0:
            self._wait(remaining_s)
            return
        self._timer = None
        self.is_over = True
        self._expired()
