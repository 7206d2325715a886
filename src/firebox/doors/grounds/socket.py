"""A WebSocket between the client and the library: packets are checked, what waits is bounded, no error leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from litestar.types import Receive, Send

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds.packets import PACKET_CHARACTERS
from firebox.doors.grounds.sessions import Session
from firebox.doors.grounds.socketio_server import WAITING_PACKETS, Library

POLICY_CLOSE = 1008
"""Source: RFC 6455, section 7.4.1."""
REASON_BYTES = 123
"""Source: RFC 6455, section 5.5."""
UPGRADE_WITHIN_S = 20.0
HANDOVER = ("2probe", "5")
"""What a client that polled sends first, and the answers to which it waits for."""

Message = Mapping[str, Any]


class GuardedSocket:
    """What the library takes for the WebSocket. session: None until the library has opened one."""

    def __init__(self, library: Library, session: Session | None, receive: Receive, send: Send) -> None:
        self.session = session
        self._library = library
        self._receive = receive
        self._send = send
        self._handover = list(HANDOVER) if session is not None else []
        self._connected = False
        self._over = asyncio.Event()
        """The client is gone, or was sent away."""

    async def receive(self) -> Message:
        """Give the library the next packet that it may see, or the end of the connection."""
        if not self._connected:
            self._connected = True
            return cast(Message, await self._receive())
        try:
            while not self._over.is_set():
                text = await self._next_packet()
                if text is not None:
                    return {"type": "websocket.receive", "text": text}
        except InvalidRequest as error:
            self._end()
            await self._send_away(error.message)
        self._end()
        return {"type": "websocket.disconnect", "code": POLICY_CLOSE}

    async def send(self, message: Any) -> None:
        """Send for the library. Raises: OSError when the client is gone."""
        if self._over.is_set():
            raise ConnectionResetError
        try:
            await self._send(message)
        except OSError:
            self._over.set()
            raise
        if message["type"] == "websocket.close":
            self._over.set()

    async def _next_packet(self) -> str | None:
        """Receive a packet; None for one that the library is not to see, and at the end. Raises: InvalidRequest."""
        session = self.session
        if session is None:
            raise InvalidRequest("no session")
        if self._handover:
            return await self._next_of_handover()
        await self._wait_for_room(session)
        message = await self._take()
        if message is None:
            return None
        if message.get("text") is None:
            if len(message["bytes"]) > PACKET_CHARACTERS:
                raise InvalidRequest("the packet is too large")
            session.reader.read_attachment()
            return None
        return session.reader.read(_bounded(message["text"]))

    async def _next_of_handover(self) -> str | None:
        try:
            async with asyncio.timeout(UPGRADE_WITHIN_S):
                message = await self._take()
        except TimeoutError:
            raise InvalidRequest("the change of the transport took too long") from None
        if message is None:
            return None
        if message.get("text") != self._handover[0]:
            raise InvalidRequest("not what begins a change of the transport")
        return self._handover.pop(0)

    async def _take(self) -> Message | None:
        message = cast(Message, await self._receive())
        if message["type"] != "websocket.receive":
            self._over.set()
            return None
        return message

    async def _wait_for_room(self, session: Session) -> None:
        """Do not read on while a lot waits for the client: it has to take the answers to what it asked."""
        if self._library.waiting_packets(session.id) < WAITING_PACKETS:
            return
        draining = asyncio.ensure_future(self._library.drained(session.id))
        ending = asyncio.ensure_future(self._over.wait())
        try:
            await asyncio.wait({draining, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            draining.cancel()
            ending.cancel()

    def _end(self) -> None:
        """End what the client has asked for, at once: the library does it when it has sent what waits, and a client may have
        stopped taking that. One that does not get as far as the handover goes on with polling.
        """
        if self.session is not None and not self._handover:
            self.session.end()

    async def _send_away(self, words: str) -> None:
        try:
            reason = words.encode()[:REASON_BYTES].decode(errors="ignore")
            await self.send({"type": "websocket.close", "code": POLICY_CLOSE, "reason": reason})
        except OSError:
            pass
        self._over.set()


def _bounded(text: str) -> str:
    if len(text) > PACKET_CHARACTERS:
        raise InvalidRequest("the packet is too large")
    return text
