"""Admission: a fixed number of slots, a bounded queue, and a fair share of both for each client.

A free slot goes to the waiting client that holds the fewest, and among equals to the one whose turn it is: a client with a
thousand jobs in the queue delays another client's first job by one turn and not by a thousand. Some slots are reserved for
clients that hold none, so that long runs of one client do not keep the others waiting.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from firebox.domain.errors import BodiesFull, QueueFull, ShuttingDown

_RETRY_AFTER_S = 1.0


class AdmissionStatistics(NamedTuple):
    slots: int
    in_flight: int
    queued: int


class WaitingBytes:
    """Bounds what queued jobs hold in memory, per client and in total; queues may share it. One job may always wait."""

    def __init__(self, allowed: int, allowed_per_client: int) -> None:
        self._allowed = allowed
        self._allowed_per_client = allowed_per_client
        self._per_client: Counter[str] = Counter()
        self._all = 0

    def add(self, client: str, size_bytes: int) -> None:
        """Count a job. Raises: BodiesFull."""
        of_client = self._per_client[client]
        if of_client and of_client + size_bytes > self._allowed_per_client:
            raise BodiesFull("what this client's jobs hold that wait for a slot", self._allowed_per_client)
        if self._all and self._all + size_bytes > self._allowed:
            raise BodiesFull("what jobs hold that wait for a slot", self._allowed)
        self._all += size_bytes
        self._per_client[client] += size_bytes

    def remove(self, client: str, size_bytes: int) -> None:
        self._all -= size_bytes
        self._per_client[client] -= size_bytes
        if not self._per_client[client]:
            del self._per_client[client]


class Place:
    """A job's place in the queue. dispatch: called once, when the job gets a slot; set by the caller of `enter`."""

    __slots__ = ("client", "dispatch", "size_bytes")

    def __init__(self, client: str, size_bytes: int) -> None:
        self.client = client
        self.size_bytes = size_bytes
        self.dispatch: Callable[[], None] = lambda: None


class Admission:
    """Assigns slots. Each slot that `enter` took, or that a place's `dispatch` announced, must be released with `release`.

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
        self._waiting_bytes = waiting_bytes or WaitingBytes(sys.maxsize, sys.maxsize)
        self._slots = slots
        self._queue_length = queue_length
        self._queue_per_client = queue_per_client
        self._reserved = min(reserved, slots - 1)
        self._slots_per_client = slots_per_client or slots
        self._in_flight = 0
        self._queued = 0
        self._held: Counter[str] = Counter()
        # No client here may take a slot now: a change that allows it assigns the slot at once.
        self._waiting: OrderedDict[str, deque[Place]] = OrderedDict()
        self._closed = False

    def enter(self, client: str, size_bytes: int = 0) -> Place | None:
        """Take a slot and return None, or take a place in the queue. size_bytes: what the job holds in memory.

        Raises: QueueFull, BodiesFull, ShuttingDown.
        """
        if self._closed:
            raise ShuttingDown("the server is stopping", retry_after_s=_RETRY_AFTER_S)
        if self._may_take(client):
            self._take(client)
            return None
        if self._queued >= self._queue_length:
            busy = f"{self._in_flight} of {self._slots} slots are busy, the others are kept for other clients,"
            if self._in_flight == self._slots:
                busy = f"all {self._slots} slots are busy"
            raise QueueFull(f"{busy} and {self._queued} jobs wait", retry_after_s=_RETRY_AFTER_S)
        of_client = self._waiting.get(client, ())
        if len(of_client) >= self._queue_per_client:
            raise QueueFull(f"{len(of_client)} jobs of this client wait already", retry_after_s=_RETRY_AFTER_S)
        self._waiting_bytes.add(client, size_bytes)
        place = Place(client, size_bytes)
        self._waiting.setdefault(client, deque()).append(place)
        self._queued += 1
        return place

    def leave(self, place: Place) -> None:
        """Leave the queue, without a slot."""
        places = self._waiting[place.client]
        places.remove(place)
        if not places:
            del self._waiting[place.client]
        self._forget(place)

    def release(self, client: str) -> None:
        """Release a slot of a client: the next client in turn gets it."""
        self._in_flight -= 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]
        self._dispatch()

    def close(self) -> None:
        """Refuse new jobs, and dispatch no queued one: those can only leave."""
        self._closed = True

    def statistics(self) -> AdmissionStatistics:
        return AdmissionStatistics(self._slots, self._in_flight, self._queued)

    def _may_take(self, client: str) -> bool:
        free, held = self._slots - self._in_flight, self._held[client]
        return free > (self._reserved if held else 0) and held < self._slots_per_client

    def _take(self, client: str) -> None:
        self._in_flight += 1
        self._held[client] += 1

    def _dispatch(self) -> None:
        """Assign free slots to waiting jobs, as long as one of them may take one."""
        while not self._closed and (eligible := [client for client in self._waiting if self._may_take(client)]):
            client = min(eligible, key=self._held.__getitem__)
            places = self._waiting.pop(client)
            place = places.popleft()
            if places:
                self._waiting[client] = places  # behind the others
            self._take(client)
            self._forget(place)
            place.dispatch()

    def _forget(self, place: Place) -> None:
        self._queued -= 1
        self._waiting_bytes.remove(place.client, place.size_bytes)
