"""Bounded WebSocket connections (see `connection`). Imported with the first one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame

from firebox.domain.errors import BodiesFull
from firebox.doors.http.client_limits import ClientLimits, Reservation
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.server.connection import GuardedTransport, Slices

FRAME_CHARACTERS = 128 * 1024
"""Longer messages are sent in frames of this size."""
MESSAGE_BYTES = 512
"""Memory overhead of a queued message."""


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket with backpressure both ways: frames are parsed only while the client reads and the application keeps up."""

    _queued_bytes = 0
    _unsent_bytes = 0

    def __init__(self, limits: ClientLimits, turns: FairScheduler, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._sending = asyncio.Lock()
        self._limits = limits
        self._turns = turns
        self._reservation: Reservation | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the transport of the HTTP connection, which already counts as a connection."""
        self._guarded = cast(GuardedTransport, transport)
        self._slices = Slices(self._turns, self._guarded, self._parse, self._is_blocked)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slices.drop()
        self._guarded.lost()
        if self._reservation is not None:
            self._reservation.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        # Otherwise a client that sends pings and never reads the pongs fills the memory.
        self._guarded.pause("writing")
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._guarded.resume("writing")
        if not self.transport.is_closing():
            self._reserve()
        self._slices.wake()

    def data_received(self, data: bytes) -> None:
        self._slices.feed(data)

    def _is_blocked(self) -> bool:
        return self.read_paused or not self.writable.is_set()

    def _parse(self, data: memoryview) -> None:
        super().data_received(cast(bytes, data))
        if not self.handshake_initiated:
            if self.conn.handshake_exc is not None:  # a header line is too long for it
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.transport.close()
        elif not self.transport.is_closing():
            self._reserve()

    def handle_text(self, event: Frame) -> None:
        self._begin("text", event)

    def handle_bytes(self, event: Frame) -> None:
        self._begin("bytes", event)

    def handle_cont(self, event: Frame) -> None:
        """Append a frame to its message, as one buffer: a list of many small frames takes many times their size."""
        message = cast(bytearray, self.frames[0])
        message += event.data
        if event.fin:
            self.frames = [bytes(message)]
            self._end()

    async def receive(self) -> Any:
        if not self.queue.empty():  # several arrived in one slice; a single one was charged when it was parsed
            await self._turns.wait(self._guarded.counted_client)
        message = await super().receive()
        if self.queue.empty():
            self._queued_bytes = 0
            self._reserve()
        self._slices.wake()
        return message

    async def send(self, message: Any) -> None:
        async with self._sending:
            text = message.get("text") if message["type"] == "websocket.send" and not self.close_sent else None
            if text is not None and len(text) > FRAME_CHARACTERS:
                await self._send_in_frames(text)
            else:
                await super().send(message)
        if not self.transport.is_closing():
            self._reserve()
        # The client may already have answered a close.
        self._slices.wake()

    async def _send_in_frames(self, text: str) -> None:
        """Send a large message in several frames. Wait for each to be written, and yield to other tasks in between."""
        try:
            for start in range(0, len(text), FRAME_CHARACTERS):
                await self.writable.wait()
                if self.disconnected:
                    raise ClientDisconnected
                frame, end = text[start : start + FRAME_CHARACTERS].encode(), start + FRAME_CHARACTERS
                if start:
                    self.conn.send_continuation(frame, end >= len(text))
                else:
                    self.conn.send_text(frame, fin=False)
                self.transport.write(b"".join(self.conn.data_to_send()))
                self._unsent_bytes = max(0, len(text) - end)
                self._reserve()
                await asyncio.sleep(0)
        except InvalidState:
            raise ClientDisconnected from None
        finally:
            if self._unsent_bytes:
                # Nothing may follow half a message.
                self._unsent_bytes = 0
                self._guarded.abort()

    def _begin(self, kind: Any, event: Frame) -> None:
        self.curr_msg_data_type = kind
        if event.fin:
            self.frames = [bytes(event.data)]
            self._end()
        else:
            self.frames = [cast(bytes, bytearray(event.data))]

    def _end(self) -> None:
        """Queue a complete message. Messages that arrive after our close frame are dropped."""
        (data,), self.frames = self.frames, []
        if self.close_sent:
            return
        message: Any = {"type": "websocket.receive"}
        try:
            message[self.curr_msg_data_type] = data.decode() if self.curr_msg_data_type == "text" else data
        except UnicodeDecodeError:
            self.conn.fail(CloseCode.INVALID_DATA)
            self.handle_parser_exception()
            return
        self._turns.take(self._guarded.counted_client)
        self._queued_bytes += len(data) + MESSAGE_BYTES
        self.queue.put_nowait(message)
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    def _reserve(self) -> None:
        """Update the memory reserved for this client; close with "try again later" when the budget is exhausted."""
        if self.disconnected:
            return  # the application still reads queued messages, but nothing would release a reservation made now
        received_bytes = len(self.conn.reader.buffer) + sum(map(len, self.frames)) + self._queued_bytes
        size_bytes = received_bytes + self._guarded.get_write_buffer_size() + self._unsent_bytes
        if self._reservation is None:
            if size_bytes < self._limits.uncounted_bytes:
                return
            # By now the middleware has replaced a trusted proxy's address with the client's.
            self._reservation = self._limits.memory.open(self.scope["client"][0] if self.scope["client"] else "")
        try:
            self._reservation.set(size_bytes, allow_any_size=size_bytes > received_bytes)
        except BodiesFull as error:
            self.conn.fail(CloseCode.TRY_AGAIN_LATER, error.message[:120])
            self.handle_parser_exception()
            if size_bytes > received_bytes:
                self._guarded.abort()  # the client does not read, so it would not read the close frame either
