"""Fair turns of the event loop: however much one client sends, the others wait for a few milliseconds.

In one turn of the loop each client may begin one thing that makes work: a connection, a request, a message, a call. What
merely has to be parsed is parsed a little at a time, clients taking turns. Nothing is refused and no rate is set: a client that
is alone has one turn after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable

TURN_S = 0.002
"""How long things that wait are worked on in a turn, before the event loop does something else."""
CLIENTS_A_TURN = 8
"""How many clients begin something in a turn; the next turn begins with the others."""

Work = Callable[[], bool]
"""Does a part of what waits. Returns whether there is more. One that begins something calls `Turns.take`.

One that fails is logged and done no more; to close what it belongs to is up to it.
"""


class Turns:
    """Shares the event loop among clients. One serves every listener of the process."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Work]] = OrderedDict()
        self._took: set[str] = set()
        self._left_s = TURN_S
        self._scheduled = False
        self._is_working = False

    def is_open(self, client: str) -> bool:
        """Say whether a client may still begin something in this turn."""
        return client not in self._took and len(self._took) < CLIENTS_A_TURN

    def take(self, client: str) -> None:
        """Note that a client begins something: it begins no more in this turn."""
        self._took.add(client)
        self._schedule()

    def join(self, client: str, work: Work) -> None:
        """Have work done for a client, at once if this turn allows."""
        self._waiting.setdefault(client, deque()).append(work)
        self._schedule()
        self._work()

    async def wait(self, client: str) -> None:
        """Begin something as soon as the client's turn comes, at once if this is its turn."""
        if self.is_open(client) and client not in self._waiting:
            self.take(client)
            return
        come: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def begin() -> bool:
            if not come.done():  # else nobody waits any more
                self.take(client)
                come.set_result(None)
            return False

        self.join(client, begin)
        await come

    def _work(self) -> None:
        if self._is_working:
            return  # what is being worked on has joined something
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
        except Exception as error:  # noqa: BLE001 - it is one client's; whoever joins or waits is another
            context = {"message": "work of a client has failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)
        if works:
            self._waiting.move_to_end(client)
        else:
            del self._waiting[client]

    def _next(self) -> str | None:
        if len(self._took) >= CLIENTS_A_TURN:
            return None  # without a look at each of the thousands that may wait
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
