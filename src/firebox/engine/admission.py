"""Who may run now: a fixed number of slots, a bounded queue, and a fair share of both for each client.

A free slot goes to the waiting client that holds the fewest, and among equals to the one whose turn it is: a client with a
thousand jobs in the queue delays another client's first job by one turn and not by a thousand. Some slots are reserved for
clients that hold none, so that long runs of one client do not keep the others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from typing import NamedTuple

from firebox.errors import QueueFull, ShuttingDown

_RETRY_AFTER_S = 1.0


class AdmissionStatistics(NamedTuple):
    slots: int
    in_flight: int
    queued: int


class Admission:
    """Hands out slots; `acquire` and `release` belong together.

    reserved: how many slots only clients without one may take. slots_per_client: the most that a client holds; 0 for no
    further limit. Both hold for each client, so with one slot there is nothing to reserve.
    """

    def __init__(
        self, slots: int, queue_length: int, queue_per_client: int, *, reserved: int = 0, slots_per_client: int = 0
    ) -> None:
        self._slots = slots
        self._queue_length = queue_length
        self._queue_per_client = queue_per_client
        self._reserved = min(reserved, slots - 1)
        self._slots_per_client = slots_per_client or slots
        self._in_flight = 0
        self._queued = 0
        self._held: Counter[str] = Counter()
        # No client here may take a slot now: whatever makes that possible hands one out at once.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._closed = False

    async def acquire(self, client: str) -> None:
        """Take a slot, waiting for a turn. Raises: QueueFull, ShuttingDown."""
        if self._closed:
            raise ShuttingDown("the server is stopping", retry_after_s=_RETRY_AFTER_S)
        if self._may_take(client):
            self._take(client)
            return
        mine = self._waiting.get(client)
        if self._queued >= self._queue_length:
            raise QueueFull(f"{self._busy()} and {self._queued} jobs wait", retry_after_s=_RETRY_AFTER_S)
        if mine is not None and len(mine) >= self._queue_per_client:
            raise QueueFull(f"{len(mine)} jobs of this client wait already", retry_after_s=_RETRY_AFTER_S)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(turn)
        self._queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(client)  # the slot came in the same moment
            else:
                self._leave(client, turn)
            raise

    def release(self, client: str) -> None:
        """Give a slot of a client back: the next client in turn gets it."""
        self._in_flight -= 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._hand_out()

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

    def _may_take(self, client: str) -> bool:
        free, held = self._slots - self._in_flight, self._held[client]
        return free > (self._reserved if held else 0) and held < self._slots_per_client

    def _take(self, client: str) -> None:
        self._in_flight += 1
        self._held[client] += 1

    def _hand_out(self) -> None:
        """Give free slots to those who wait, as long as one of them may take one."""
        while eligible := [client for client in self._waiting if self._may_take(client)]:
            client = min(eligible, key=self._held.__getitem__)
            turns = self._waiting.pop(client)
            turn = turns.popleft()
            self._queued -= 1
            if turns:
                self._waiting[client] = turns  # to the end of the round
            if not turn.done():
                self._take(client)
                turn.set_result(None)

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(client)
        if turns is not None and turn in turns:
            turns.remove(turn)
            self._queued -= 1
            if not turns:
                del self._waiting[client]

    def _busy(self) -> str:
        if self._in_flight == self._slots:
            return f"all {self._slots} slots are busy"
        return f"{self._in_flight} of {self._slots} slots are busy, the others are kept for other clients,"
