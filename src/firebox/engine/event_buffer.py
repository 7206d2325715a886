"""The events of a run, kept until they are read."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from firebox.domain.limits import StageName
from firebox.domain.model import Event, Finished, Output, Queued, StreamName
from firebox.sandbox.instance.input_writer import wake

BUFFERED_BYTES = 1 << 20
"""Output kept for a slow reader; past it the program has to wait."""

EVENT_BYTES = 200
"""Memory of an event besides its data."""

_QUEUED = Queued()


class EventBuffer:
    """Events of one run for one reader, beginning with `Queued`."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque((_QUEUED,))
        self.buffered_bytes = 0
        self._sequence = 0
        self._arrived = asyncio.Event()
        self._has_room: asyncio.Future[None] | None = None
        self._is_kept = True
        self._is_finished = False

    @property
    def is_full(self) -> bool:
        """Whether the program has to wait for the reader."""
        return self.buffered_bytes > BUFFERED_BYTES

    def has_room(self) -> asyncio.Future[None]:
        """Return what is done once the reader has caught up."""
        if self._has_room is None or self._has_room.done():
            self._has_room = asyncio.get_running_loop().create_future()
        return self._has_room

    def next_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def put(self, event: Event) -> None:
        if self._is_kept:
            self._events.append(event)
            self._arrived.set()

    def put_output(self, stage: StageName, stream: StreamName, data: bytes) -> None:
        if self._is_kept:
            self.buffered_bytes += len(data) + EVENT_BYTES
            self.put(Output(sequence=self.next_sequence(), stage=stage, stream=stream, data=data))

    def finish(self, event: Finished) -> None:
        """Put the last event."""
        self._is_finished = True
        self._events.append(event)
        self._arrived.set()

    async def read(self) -> AsyncIterator[Event]:
        """Yield every event, ending with `Finished`."""
        while True:
            while self._events:
                event = self._events.popleft()
                if isinstance(event, Output):
                    self.buffered_bytes -= len(event.data) + EVENT_BYTES
                    if self._has_room is not None and self.buffered_bytes <= BUFFERED_BYTES // 2:
                        wake(self._has_room)
                yield event
                if isinstance(event, Finished):
                    return
            self._arrived.clear()
            await self._arrived.wait()

    async def finished(self) -> None:
        """Drop every event but the last, and wait for that."""
        self._is_kept = False
        self._events.clear()
        self.buffered_bytes = 0
        if self._has_room is not None:
            wake(self._has_room)
        while not self._is_finished:
            self._arrived.clear()
            await self._arrived.wait()
