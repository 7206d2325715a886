"""A client's Socket.IO session: packets from it, packets queued for it, and its heartbeat. Independent of the transport."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import cast

from msgspec import Struct, json

from firebox.domain.errors import InvalidRequest
from firebox.doors.grounds import engineio_packets as engine
from firebox.doors.grounds import socketio_packets as packets
from firebox.doors.grounds.conversation import Conversation
from firebox.doors.grounds.engineio_packets import EnginePacket, Revision
from firebox.doors.grounds.rate_limit import Clock, TokenBucket
from firebox.doors.grounds.wire import EVENT, Reply

PING_INTERVAL_S = 25.0
PING_TIMEOUT_S = 20.0
"""A client that does not send or answer a ping in time is disconnected. Source: Engine.IO, defaults of the reference server."""
JOIN_WITHIN_S = 45.0
"""How long a session may exist before its client joins. Source: Socket.IO, default of `connectTimeout`."""
CONNECTS = 10
"""How often a client may join; each time its token is looked up."""
PACKETS_PER_S = 50
PACKETS_AT_ONCE = 200

WINDOW_BYTES = 64 * 1024
"""How much may be queued for a client before its program has to wait. As much again may be in transit."""
PACKET_BYTES = 400
"""Overhead of a queued packet."""
WAITING_PACKETS = 512
"""Nothing is read from a client with this many queued packets: they are responses. Output alone, limited by the window, is less,
so a slow client can still send another request."""
ANSWER_PACKETS = 16
"""Packets in the answer to a poll. Source: python-engineio, whose clients refuse more."""
ANSWER_CHARACTERS = 64 * 1024
CHUNK_CHARACTERS = ANSWER_CHARACTERS // 7
"""Length of a chunk, each character of which may become six, for clients on Engine.IO 3. Version 1 in a browser fails on a
response much longer than `ANSWER_CHARACTERS`. Source: engine.io-client 1.8, `String.fromCharCode.apply`.
"""


class JoinRefused(Exception):
    """A client may not join. The message is sent to it."""


Join = Callable[["Session", object], Awaitable[Conversation]]
"""Called when a client joins, with its credentials. Raises: JoinRefused."""


class Client(Struct, frozen=True):
    """Who opened a session, and how. token: from its first request, or None."""

    address: str
    token: str | None
    revision: Revision


class Upgrade(Enum):
    """State of the upgrade from polling to a WebSocket."""

    NONE = "polling only"
    OPENED = "a WebSocket is open"
    PROBED = "the WebSocket works: polls are answered at once, so that the client can stop polling"
    DONE = "WebSocket only"


class Outbox:
    """Packets queued for the client, oldest first."""

    def __init__(self) -> None:
        self._packets: deque[str] = deque()
        self._bytes = 0
        self.filled = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._packets)

    def put(self, packet: str) -> None:
        self._packets.append(packet)
        self._bytes += len(packet) + PACKET_BYTES
        self.filled.set()
        self._empty.clear()

    def take(self, count: int, characters: int = 0) -> list[str]:
        """Take the oldest packet, and those after it: up to `count` packets, and `characters` together."""
        taken: list[str] = []
        while self._packets and (not taken or (len(taken) < count and len(self._packets[0]) <= characters)):
            packet = self._packets.popleft()
            self._bytes -= len(packet) + PACKET_BYTES
            characters -= len(packet)
            taken.append(packet)
        if not self._packets:
            self._empty.set()
            if not self._is_closed:
                self.filled.clear()
        return taken

    async def until_taken(self, waiting_bytes: int = 0, waiting_packets: int = 0) -> None:
        """Wait until everything has been taken, unless less than this is queued."""
        if self._bytes >= waiting_bytes and len(self._packets) >= waiting_packets:
            await self._empty.wait()

    def close(self, farewell: str) -> None:
        """Queue a last packet. End all waits, for packets and for their being taken."""
        self.put(farewell)
        self._is_closed = True
        self._empty.set()


class Session:
    """A session, open from its creation to `close`. closed: called once at the end."""

    def __init__(self, identifier: str, client: Client, join: Join, closed: Callable[[Session], None], clock: Clock) -> None:
        self.id = identifier
        self.client = client
        self.outbox = Outbox()
        self.upgrade = Upgrade.NONE
        self.serving: set[str] = set()
        """Requests that are being answered, "polls" and "posts": at most one of each."""
        self.ended = asyncio.Event()
        self._join = join
        self._closed = closed
        self._conversation: Conversation | None = None
        self._bucket = TokenBucket(PACKETS_PER_S, PACKETS_AT_ONCE, clock)
        self._attachments = 0
        self._connects = 0
        self._awaits_pong = False
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.TimerHandle | None = None
        """The next ping, or the end of waiting for the client's."""
        self._join_timer = self._loop.call_later(JOIN_WITHIN_S, self.close)

    @property
    def is_open(self) -> bool:
        return not self.ended.is_set()

    async def open(self, *, may_upgrade: bool) -> None:
        """Queue the greeting. Clients of versions 1 and 2 join without a request."""
        greeting = {
            "sid": self.id,
            "upgrades": ["websocket"] if may_upgrade else [],
            "pingInterval": int(PING_INTERVAL_S * 1000),
            "pingTimeout": int(PING_TIMEOUT_S * 1000),
            "maxPayload": engine.PACKET_CHARACTERS,
        }
        self.outbox.put(engine.OPEN + json.encode(greeting).decode())
        self._restart_beat()
        if self.client.revision == 3:
            await self._connect(packets.NAMESPACE, None)

    async def receive(self, packet: EnginePacket) -> None:
        """Handle a packet from the client. Raises: InvalidRequest for one that violates the protocol."""
        if not self.is_open:
            return
        if not self._bucket.take():
            raise InvalidRequest("too many packets")
        if packet.type == engine.BINARY:
            if not self._attachments:
                raise InvalidRequest("binary data that belongs to no event")
            self._attachments -= 1
            return
        if self._attachments:
            raise InvalidRequest("an attachment is missing")
        match self.client.revision, packet.type, packet.text:
            case _, engine.MESSAGE, text:
                await self._receive_message(packets.decode(text))
            case _, engine.CLOSE, "":
                self.close(engine.NOOP)
            case 3, engine.PING, "":
                self.outbox.put(engine.PONG)
                self._restart_beat()
            case 4, engine.PONG, "":
                if self._awaits_pong:
                    self._restart_beat()
            case _:
                raise InvalidRequest("not a packet of Engine.IO that a client sends")

    def send(self, reply: Reply) -> None:
        """Queue a reply, in pieces where its client can take no large ones. Does nothing when the client is gone."""
        if not self.is_open:
            return
        pieces = [reply]
        if self.client.revision == 3 and isinstance(text := reply.chunk, str) and len(text) > CHUNK_CHARACTERS:
            starts = range(0, len(text), CHUNK_CHARACTERS)
            pieces = [Reply(reply.stream, text[start : start + CHUNK_CHARACTERS]) for start in starts]
        for piece in pieces:
            self.outbox.put(packets.encode_event((EVENT, piece), self.client.revision))

    async def until_taken(self) -> None:
        """Wait until the client has taken most of what was sent."""
        await self.outbox.until_taken(waiting_bytes=WINDOW_BYTES)

    async def until_idle(self) -> None:
        """Wait until the client's runs have ended."""
        if self._conversation is not None:
            await self._conversation.until_idle()

    def close(self, farewell: str = engine.CLOSE) -> None:
        """End the session and its client's runs. farewell: last packet, for the transport."""
        if not self.is_open:
            return
        self.ended.set()
        self._leave()
        for timer in (self._beat, self._join_timer):
            if timer is not None:
                timer.cancel()
        self.outbox.close(farewell)
        self._closed(self)

    async def _receive_message(self, packet: packets.SocketPacket) -> None:
        self._attachments = packet.attachments
        match packet.type:
            case packets.CONNECT:
                await self._connect(packet.namespace, packet.data)
            case packets.DISCONNECT if packet.namespace == packets.NAMESPACE:
                self._leave()
            case packets.EVENT if packet.namespace == packets.NAMESPACE and self._conversation is not None:
                name, *arguments = cast("list[object]", packet.data)
                if name == EVENT:
                    self._conversation.request(arguments[0] if arguments else None)
                    if packet.ack:
                        self.outbox.put(packets.encode_ack(packet.ack))
            case _:
                pass

    async def _connect(self, namespace: str, credentials: object) -> None:
        self._connects += 1
        if self._connects > CONNECTS:
            raise InvalidRequest("too many attempts to connect")
        revision = self.client.revision
        if namespace != packets.NAMESPACE:
            self.outbox.put(packets.encode_refused(namespace, "Invalid namespace", revision))
            return
        try:
            conversation = await self._join(self, credentials)
        except JoinRefused as refusal:
            self.outbox.put(packets.encode_refused(namespace, str(refusal), revision))
            return
        if not self.is_open:
            return
        self._leave()
        self._join_timer.cancel()
        self._conversation = conversation
        self.outbox.put(packets.encode_connected(self.id, revision))

    def _leave(self) -> None:
        if self._conversation is not None:
            self._conversation.close()
            self._conversation = None
            self._join_timer = self._loop.call_later(JOIN_WITHIN_S, self.close)

    def _restart_beat(self) -> None:
        """Wait for the client's next ping, or until our own is due."""
        self._awaits_pong = False
        if self.client.revision == 3:
            self._wait(PING_INTERVAL_S + PING_TIMEOUT_S, self.close)
        else:
            self._wait(PING_INTERVAL_S, self._ping)

    def _ping(self) -> None:
        self.outbox.put(engine.PING)
        self._awaits_pong = True
        self._wait(PING_TIMEOUT_S, self.close)

    def _wait(self, delay_s: float, then: Callable[[], None]) -> None:
        if self._beat is not None:
            self._beat.cancel()
        self._beat = self._loop.call_later(delay_s, then)
