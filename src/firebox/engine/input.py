"""What a client types, held until the program reads it: bounded, in order, from before the program runs until after it ended."""

from __future__ import annotations

import asyncio
from collections import deque

from firebox.domain.model import Eof, Stdin
from firebox.sandbox.instance.sandbox import Sandbox


class InputQueue:
    """A queue of at most `room_bytes` between `Run.send` and a sandbox's stdin. first: comes before everything else."""

    def __init__(self, room_bytes: int, first: bytes = b"") -> None:
        self._room_bytes = room_bytes
        self._waiting: deque[Stdin | Eof] = deque([Stdin(first)] if first else [])
        self._waiting_bytes = len(first)
        self._changed = asyncio.Condition()
        self._closed = False

    async def put(self, message: Stdin | Eof) -> None:
        """Queue a message; waits while the program does not read what came before. Ignored once closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._closed or self._waiting_bytes < self._room_bytes)
            if self._closed:
                return
            self._waiting.append(message)
            self._waiting_bytes += len(message.data) if isinstance(message, Stdin) else 0
            self._changed.notify_all()

    async def feed(self, sandbox: Sandbox) -> None:
        """Pass everything on until the end of input or cancellation."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._waiting))
                message = self._waiting.popleft()
            if isinstance(message, Eof):
                sandbox.close_stdin()
                return
            await sandbox.write_stdin(message.data)
            async with self._changed:
                self._waiting_bytes -= len(message.data)
                self._changed.notify_all()

    async def close(self) -> None:
        """Let go of everybody who waits; the program has ended."""
        async with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
