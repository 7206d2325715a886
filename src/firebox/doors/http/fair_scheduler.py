"""Fair scheduling of clients on the event loop: a flood from one client delays the others by a few milliseconds only.

In each turn of the loop a client may start one piece of work: a connection, a request, a message, a call. Pending input is parsed
in small slices, round-robin. Nothing is rejected and no rate is limited: a client that is alone gets one turn after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

TURN_S = 0.002
"""Time spent on queued work per turn, before the event loop runs other callbacks."""
CLIENTS_A_TURN = 8
"""How many clients may start work in one turn; the others follow in the next."""

Work = Callable[[], bool]
"""Performs one step of queued work. Return whether more remains. A step that starts work calls `FairScheduler.take`. If it
raises, the error is logged and the work is dropped; cleaning up is its own duty.
"""


class FairScheduler:
    """Shares the event loop among clients. One instance serves every listener of the process."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._took: set[str] = set()
        self._left_s = TURN_S
        self._scheduled = False
        self._is_working = False

    def is_open(self, client: str) -> bool:
        """Return whether a client may start work in this turn."""
        return client not in self._took and len(self._took) < CLIENTS_A_TURN

    def take(self, client: str) -> None:
        """Record that a client starts work: it may start no more in this turn."""
        self._took.add(client)
        self._schedule()

    def join(self, client: str, work: Work) -> None:
        """Queue work of a client. It runs at once if this turn allows."""
        self._waiting.setdefault(client, deque()).append(work)
        self._schedule()
        self._work()

    async def wait(self, client: str) -> None:
        """Wait for the client's turn and take it."""
        if self.is_open(client) and client not in self._waiting:
            self.take(client)
            return
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> bool:
            if not come.done():  # otherwise the waiting task was cancelled
                self.take(client)
                come.set_result(None)
            return False

        self.join(client, begin)
        await come

    def _work(self) -> None:
        if self._is_working:
            return  # called by the work that is running
        self._is_working = True
        now = time.monotonic()
        end = now + self._left_s
        while now < end and (client := self._next()) is not None:
            self._work_for(client)
            now = time.monotonic()
        self._left_s = end - now
        self._is_working = False

    def _work_for(self, client: str) -> None:
        works = self._waiting[client]
        work = works.popleft()
        try:
            if work():
                works.append(work)
        except Exception as error:  # noqa: BLE001 - one client's failure must not stop the work of others
            context = {"message": "work of a client failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        if works:
            self._waiting.move_to_end(client)
        else:
            del self._waiting[client]

    def _next(self) -> str | None:
        if len(self._took) >= CLIENTS_A_TURN:
            return None  # without scanning thousands of clients
        return next((client for client in self._waiting if self.is_open(client)), None)

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        self._left_s = TURN_S
        self._took.clear()
        if self._waiting:
            self._schedule()
            self._work()
