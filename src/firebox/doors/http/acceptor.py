"""Fair acceptance of connections: no client waits in the kernel's backlog behind a flood.

Connections are taken from the backlog at once and counted for their client. Those over a limit are closed before anything is
allocated for them; the others are set up when their client's turn comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from firebox.doors.http.client_limits import ConnectionLimit
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.service.callers import rate_limit_key

BACKLOG = 4096
"""Size of the kernel's backlog; net.core.somaxconn may reduce it."""
ACCEPTED_AT_ONCE = 128
"""How many connections are accepted in one go: 2 ms."""
PAUSE_S = 0.1
"""Pause after the process has run out of file descriptors."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection within the limits. client: rate limit key; close: call it when the connection is closed."""

    address: str
    client: str
    close: Callable[[], None]


class Acceptor:
    """Serves a listening socket; has `close` and `wait_closed` like `asyncio.Server`.

    make: returns the protocol of a connection, which calls `Admitted.close` when it is lost. refusal: sent, without waiting, to
    clients over a limit; refused: called with their addresses.
    """

    def __init__(
        self,
        listener: socket.socket,
        turns: FairScheduler,
        connections: ConnectionLimit,
        make: Callable[[Admitted], asyncio.Protocol],
        refusal: bytes = b"",
        refused: Callable[[str], None] = lambda _address: None,
    ) -> None:
        self._listener = listener
        self._turns = turns
        self._connections = connections
        self._make = make
        self._refusal = refusal
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._waiting: set[socket.socket] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._is_closed = False
        listener.setblocking(False)
        listener.listen(BACKLOG)
        self._resume()

    def close(self) -> None:
        """Stop accepting, and drop connections that have not had their turn. The listener stays open."""
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._listener)
            for connection in self._waiting:
                connection.close()
            for task in self._making:
                task.cancel()

    async def wait_closed(self) -> None:
        """Wait until `close` has taken effect."""
        await asyncio.gather(*self._making, return_exceptions=True)

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, peer = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # The listener stays readable: retrying at once would keep the process busy with nothing else.
                self._loop.remove_reader(self._listener)
                self._loop.call_later(PAUSE_S, self._resume)
                return
            self._admit(connection, str(peer[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        close = self._connections.open(address)
        if close is None:
            self._refused(address)
            with connection, contextlib.suppress(OSError):
                connection.setblocking(False)
                connection.send(self._refusal)
            return
        connection.setblocking(False)
        admitted = Admitted(address, rate_limit_key(address), close)
        self._waiting.add(connection)

        def begin() -> bool:
            self._waiting.discard(connection)
            if self._is_closed or _has_left(connection):
                connection.close()
                close()
            else:
                self._turns.take(admitted.client)
                task = self._loop.create_task(self._make_connection(connection, admitted))
                self._making.add(task)
                task.add_done_callback(self._making.discard)
            return False

        self._turns.join(admitted.client, begin)

    async def _make_connection(self, connection: socket.socket, admitted: Admitted) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make(admitted), connection)
        except (OSError, asyncio.CancelledError):
            connection.close()
            admitted.close()


def _has_left(connection: socket.socket) -> bool:
    """Return whether a client closed its connection without sending anything."""
    try:
        return not connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
