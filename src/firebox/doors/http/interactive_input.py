"""From the client of an interactive run to the run: read from the handshake on, bounded, and never held up by the program.

A client is listened to while its run still waits for a slot: one that leaves then, or breaks the rules, is noticed at once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

from firebox.domain import model

AHEAD_BYTES = 1024 * 1024
"""Messages that wait for the program; past it nothing more is read from the connection."""
MESSAGE_BYTES = 64
"""What a message takes besides its data: even empty ones come to an end."""


class Incoming(ABC):
    """Passes on what a client sends: input waits for the program, the rest overtakes it. A door adds `take_next`."""

    def __init__(self) -> None:
        self._run: model.Run | None = None
        self._attached = asyncio.Event()
        self._waiting: asyncio.Queue[model.Message] = asyncio.Queue()
        self._ahead_bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    @property
    def is_attached(self) -> bool:
        """Whether the run has a slot."""
        return self._run is not None

    def attach(self, run: model.Run) -> None:
        """Let the messages through: the run has a slot."""
        self._run = run
        self._attached.set()

    async def work(self) -> None:
        """Pass on messages until the client leaves.

        Raises: what `take_next` raises, and InvalidRequest for a message that the run refuses.
        """
        await first_of(self._receive(), self._feed())

    @abstractmethod
    async def take_next(self) -> None:
        """Receive one message and pass it on with `queue` or `pass_on`. Raises: whatever ends the connection."""

    def queue(self, message: model.Message) -> None:
        """Pass a message on behind those that wait for the program."""
        self._waiting.put_nowait(message)
        self._ahead_bytes += _size_bytes(message)
        if self._ahead_bytes > AHEAD_BYTES:
            self._room.clear()

    async def pass_on(self, message: model.Message) -> None:
        """Pass a message on before those that wait; before the run has a slot there is nothing to overtake for.

        Raises: InvalidRequest.
        """
        if self._run is None:
            self.queue(message)
        else:
            await self._run.send(message)

    async def _receive(self) -> None:
        while True:
            await self._room.wait()
            await self.take_next()

    async def _feed(self) -> None:
        await self._attached.wait()
        while True:
            message = await self._waiting.get()
            if self._run is not None:
                await self._run.send(message)
            self._ahead_bytes -= _size_bytes(message)
            self._room.set()


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Do several things at once until the first one is over, and take the others back; of two that end together the first counts.

    Raises: what the first one raised.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        next(task for task in tasks if task.done()).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            # Only one of them is the reason of the end; the others' must not be reported as forgotten.
            _ = task.cancelled() or task.exception()


def _size_bytes(message: model.Message) -> int:
    return MESSAGE_BYTES + (len(message.data) if isinstance(message, model.Stdin) else 0)
