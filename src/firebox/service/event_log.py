"""Compact log of the events of one asynchronous run: output in one buffer, and seventeen bytes per event.

A program may write a million single bytes within its output limit; a million event objects would take hundreds of megabytes.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator
from typing import get_args

from firebox.domain.limits import StageName
from firebox.domain.model import Event, Finished, Output, StreamName

_KINDS: tuple[tuple[StageName, StreamName], ...] = tuple(
    (stage, stream) for stage in get_args(StageName) for stream in get_args(StreamName)
)
_OTHER = len(_KINDS)
_KIND_OF = {kind: index for index, kind in enumerate(_KINDS)}
MERGED_BYTES = 64 * 1024
"""Maximum output in one merged event."""


class EventLog:
    """The events so far, for any number of readers."""

    def __init__(self) -> None:
        self._sequences = array("Q")
        self._kinds = array("B")
        self._ends = array("Q")
        self._output = bytearray()
        self._others: dict[int, Event] = {}
        self._news = asyncio.Event()
        self.finished = False

    @property
    def kept_bytes(self) -> int:
        """Approximate memory."""
        return len(self._output) + 17 * len(self._sequences)

    @property
    def last_sequence(self) -> int:
        """The number of the last event so far, 0 before the first."""
        return self._sequences[-1] if self._sequences else 0

    def append(self, event: Event) -> None:
        """Add an event; sequence numbers must grow."""
        self._sequences.append(event.sequence)
        if isinstance(event, Output):
            self._kinds.append(_KIND_OF[event.stage, event.stream])
            self._output += event.data
        else:
            self._kinds.append(_OTHER)
            self._others[event.sequence] = event
        self._ends.append(len(self._output))
        self.finished = isinstance(event, Finished)
        self._news.set()
        self._news = asyncio.Event()

    async def read(self, *, split_after: int = -1) -> AsyncIterator[Event]:
        """Yield every event, waiting for those to come.

        Consecutive output of one stream is merged into one event, with the number of its last one; never across `split_after`,
        where another reader may have stopped.
        """
        position = 0
        while True:
            news = self._news
            while position < len(self._sequences):
                event, position = self._event_at(position, split_after)
                yield event
            if self.finished:
                return
            if news is self._news:
                await news.wait()

    def _event_at(self, position: int, split_after: int) -> tuple[Event, int]:
        kind = self._kinds[position]
        if kind == _OTHER:
            return self._others[self._sequences[position]], position + 1
        start = self._ends[position - 1] if position else 0
        last = position
        while (
            last + 1 < len(self._kinds)
            and self._kinds[last + 1] == kind
            and self._ends[last + 1] - start <= MERGED_BYTES
            and not self._sequences[last] <= split_after < self._sequences[last + 1]
        ):
            last += 1
        stage, stream = _KINDS[kind]
        data = bytes(self._output[start : self._ends[last]])
        return Output(sequence=self._sequences[last], stage=stage, stream=stream, data=data), last + 1
