"""python-socketio's server, as far as this door uses it: the one place that knows the library.

It speaks Engine.IO and Socket.IO over ASGI. What comes to it has passed `transport` and `packets`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import socketio
import structlog
from engineio import packet as engine_packet
from engineio.payload import Payload
from socketio.exceptions import ConnectionRefusedError as JoinRefused

from firebox.doors.grounds.packets import PACKET_CHARACTERS
from firebox.doors.grounds.wire import EVENT, Reply, encode

PING_INTERVAL_S = 25
PING_TIMEOUT_S = 20
"""A client that does not answer a ping in time is gone. Source: Engine.IO, defaults of the reference server."""
PACKETS_OF_A_POST = 64
"""Events that a program sends at once arrive together."""
WINDOW_BYTES = 64 * 1024
"""What may wait for a client before its program has to wait. As much again may be on its way out."""
PACKET_BYTES = 400
"""What a packet that waits costs besides its text."""
WAITING_PACKETS = 512
"""From a client that lets this many wait nothing is read any more: they are answers. Output alone, held by the window, is less,
so a client that is slow can still ask for something else."""

_log = structlog.get_logger("firebox.grounds")


class Refused(Exception):
    """A client may not connect to the namespace; the words go to it."""


Opened = Callable[[str, Any], None]
"""A transport session begins: its id, the ASGI scope of its first request."""
Closed = Callable[[str], None]
"""A transport session has ended: its id."""
Joined = Callable[[str, object], Awaitable[None]]
"""A client wants to join the namespace: the id of its session, its `auth`. Raises: Refused."""
Left = Callable[[str], None]
Asked = Callable[[str, object], None]
"""A client has sent the event `run`: the id of its session, the first argument."""


class Library:
    """One Socket.IO server. Ids are those of transport sessions."""

    def __init__(self, opened: Opened, closed: Closed, joined: Joined, left: Left, asked: Asked) -> None:
        log = _quiet_log()
        Payload.max_decode_packets = PACKETS_OF_A_POST
        self._server: Any = cast(Any, socketio.AsyncServer)(
            async_mode="asgi",
            # `transport` checks origins, and the application answers for all doors what browsers ask about them.
            cors_allowed_origins=[],
            max_http_buffer_size=PACKET_CHARACTERS,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=PING_TIMEOUT_S,
            http_compression=False,
            # Events of one client are handled in their order.
            async_handlers=False,
            logger=log,
            engineio_logger=log,
        )
        self._engine: Any = self._server.eio
        self._opened, self._closed, self._joined, self._left, self._asked = opened, closed, joined, left, asked
        self._open_session = self._engine.handlers["connect"]
        self._close_session = self._engine.handlers["disconnect"]
        self._engine.on("connect", self._on_open)
        self._engine.on("disconnect", self._on_close)
        self._server.on("connect", self._on_join)
        self._server.on("disconnect", self._on_leave)
        self._server.on(EVENT, self._on_event)

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one HTTP request or WebSocket."""
        await self._engine.handle_request(scope, receive, send)

    def is_open(self, session: str) -> bool:
        socket = self._engine.sockets.get(session)
        return socket is not None and not socket.closed

    def polls(self, session: str) -> bool:
        """Whether a session is open and not on a WebSocket."""
        return self.is_open(session) and not self._engine.sockets[session].upgraded

    def say(self, session: str, reply: Reply) -> int:
        """Queue an event for a client. Returns what it costs in bytes, 0 when the client is gone."""
        if not self.is_open(session):
            return 0
        text = "2" + encode(reply)
        # The library's own `emit` is not in order: it leaves the queueing to tasks.
        self._queue(session).put_nowait(engine_packet.Packet(engine_packet.MESSAGE, text))
        return len(text) + PACKET_BYTES

    def waiting_packets(self, session: str) -> int:
        """Count the packets that wait for a client to take them."""
        return self._queue(session).qsize() if self.is_open(session) else 0

    async def drained(self, session: str) -> None:
        """Wait until no packet waits for a client. Those that it takes just now may still be on their way."""
        if self.is_open(session):
            await self._queue(session).join()

    def end_poll(self, session: str) -> None:
        """Let a poll that waits for packets be answered."""
        socket = self._engine.sockets.get(session)
        if socket is not None:
            socket.queue.put_nowait(engine_packet.Packet(engine_packet.NOOP))

    def end_upgrade(self, session: str) -> None:
        """Go on with polling after a WebSocket that did not take over. The library forgets that in one of its ways out."""
        socket = self._engine.sockets.get(session)
        if socket is not None and not socket.upgraded:
            socket.upgrading = False

    async def close(self, session: str) -> None:
        """End a session from our side."""
        socket = self._engine.sockets.get(session)
        if socket is not None and not socket.closed:
            await socket.close(wait=False, reason=self._server.reason.SERVER_DISCONNECT)
        self._engine.sockets.pop(session, None)

    def forget(self, session: str) -> None:
        """Drop what is left of a session that has ended."""
        if not self.is_open(session):
            self._engine.sockets.pop(session, None)

    def _queue(self, session: str) -> asyncio.Queue[Any]:
        return cast("asyncio.Queue[Any]", self._engine.sockets[session].queue)

    def _session_of(self, client: str) -> str:
        return cast(str, self._server.manager.eio_sid_from_sid(client, "/"))

    async def _on_open(self, session: str, environ: dict[str, Any]) -> None:
        self._opened(session, environ["asgi.scope"])
        await self._open_session(session, environ)

    async def _on_close(self, session: str, reason: str) -> None:
        self._closed(session)
        await self._close_session(session, reason)

    async def _on_join(self, client: str, _environ: object, auth: object) -> None:
        session = self._session_of(client)
        try:
            await self._joined(session, auth)
        except Refused as refusal:
            raise JoinRefused(str(refusal)) from None
        if not self.is_open(session):
            # Else the library would remember a client that is gone for ever.
            raise JoinRefused("gone")

    def _on_leave(self, client: str, *_reason: object) -> None:
        self._left(self._session_of(client))

    def _on_event(self, client: str, *arguments: object) -> None:
        self._asked(self._session_of(client), arguments[0] if arguments else None)


def _quiet_log() -> logging.Logger:
    """Make a log for the library that holds neither what clients send nor tracebacks: only that it failed, and at what."""
    log = logging.Logger("firebox.grounds.library", logging.ERROR)  # noqa: LOG001 - nobody else is to find and change it
    log.addHandler(_Failures())
    return log


class _Failures(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            _log.error("the Socket.IO library failed", error=record.exc_info[0].__name__)
