"""Who may run now: a fixed number of slots, a bounded queue, and turns between clients.

Slots go round the waiting clients, one job each turn, so that a client with a thousand jobs in the queue delays another
client's first job by one turn and not by a thousand.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass

from firebox.errors import QueueFull, ShuttingDown

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class AdmissionStatistics:
    slots: int
    in_flight: int
    queued: int


class Admission:
    """Hands out slots; `acquire` and `release` belong together."""

    def __init__(self, slots: int, queue_length: int, queue_per_client: int) -> None:
        self._slots = slots
        self._queue_length = queue_length
        self._queue_per_client = queue_per_client
        self._in_flight = 0
        self._queued = 0
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._closed = False

    async def acquire(self, client: str) -> None:
        """Take a slot, waiting for a turn. Raises: QueueFull, ShuttingDown."""
        if self._closed:
            raise ShuttingDown("the server is stopping", retry_after_s=_RETRY_AFTER_S)
        if self._in_flight < self._slots and not self._queued:
            self._in_flight += 1
            return
        mine = self._waiting.get(client)
        if self._queued >= self._queue_length:
            raise QueueFull(f"all {self._slots} slots are busy and {self._queued} jobs wait", retry_after_s=_RETRY_AFTER_S)
        if mine is not None and len(mine) >= self._queue_per_client:
            raise QueueFull(f"{len(mine)} jobs of this client wait already", retry_after_s=_RETRY_AFTER_S)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()  # the slot came in the same moment
            else:
                self._leave(client, turn)
            raise

    def release(self) -> None:
        """Give a slot back: the next client in turn gets it."""
        while self._waiting:
            client, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self._queued -= 1
            if turns:
                self._waiting[client] = turns  # to the end of the round
            if not turn.done():
                turn.set_result(None)
                return
        self._in_flight -= 1

    def close(self) -> None:
        """Refuse everybody from now on, those who wait included."""
        self._closed = True
        for turns in self._waiting.values():
            for turn in turns:
                if not turn.done():
                    turn.set_exception(ShuttingDown("the server is stopping", retry_after_s=_RETRY_AFTER_S))
        self._waiting.clear()
        self._queued = 0

    def statistics(self) -> AdmissionStatistics:
        return AdmissionStatistics(self._slots, self._in_flight, self._queued)

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(client)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._queued -= 1
            if not turns:
                del self._waiting[client]
