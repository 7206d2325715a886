"""Who may run now: a fixed number of slots, a bounded queue, and a fair share of both for each client.

A free slot goes to the waiting client that holds the fewest, and among equals to the one whose turn it is: a client with a
thousand jobs in the queue delays another client's first job by one turn and not by a thousand. Some slots are reserved for
clients that hold none, so that long runs of one client do not keep the others waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from firebox.domain.errors import BodiesFull, QueueFull, ShuttingDown

_RETRY_AFTER_S = 1.0


class AdmissionStatistics(NamedTuple):
    slots: int
    in_flight: int
    queued: int


class WaitingBytes:
    """Bounds what jobs that wait hold in memory, of each client and of all; queues may share it. One job may always wait."""

    def __init__(self, allowed: int, allowed_per_client: int) -> None:
        self._allowed = allowed
        self._allowed_per_client = allowed_per_client
        self._per_client: Counter[str] = Counter()
        self._all = 0

    @contextmanager
    def held(self, client: str, size_bytes: int) -> Generator[None]:
        """Count a job while the context is open. Raises: BodiesFull on entry."""
        of_client = self._per_client[client]
        if of_client and of_client + size_bytes > self._allowed_per_client:
            raise BodiesFull("what this client's jobs hold that wait for a slot", self._allowed_per_client)
        if self._all and self._all + size_bytes > self._allowed:
            raise BodiesFull("what jobs hold that wait for a slot", self._allowed)
        self._all += size_bytes
        self._per_client[client] += size_bytes
        try:
            yield
        finally:
            self._all -= size_bytes
            self._per_client[client] -= size_bytes
            _drop_zero(self._per_client, client)


class Admission:
    """Hands out slots; `acquire` and `release` belong together.

    waiting_bytes: None for no bound. reserved: how many slots only clients without one may take. slots_per_client: the most that
    a client holds; 0 for no further limit. Both hold for each client, so with one slot there is nothing to reserve.
    """

    def __init__(
        self,
        slots: int,
        queue_length: int,
        queue_per_client: int,
        *,
        waiting_bytes: WaitingBytes | None = None,
        reserved: int = 0,
        slots_per_client: int = 0,
    ) -> None:
        self._waiting_bytes = waiting_bytes
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

    async def acquire(self, client: str, size_bytes: int = 0) -> None:
        """Take a slot, waiting for a turn. size_bytes: what the job holds. Raises: QueueFull, BodiesFull, ShuttingDown."""
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
        with self._waiting_bytes.held(client, size_bytes) if self._waiting_bytes is not None else nullcontext():
            await self._wait(client)

    async def _wait(self, client: str) -> None:
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


def _drop_zero(counts: Counter[str], key: str) -> None:
    if not counts[key]:
        del counts[key]
