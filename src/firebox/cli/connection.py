"""HTTP and WebSocket connections that no client can make grow without bound or keep the event loop busy.

uvicorn bounds neither the head of a request nor what it parses in one go. Here a head is bounded in bytes, fields and time, and
what was read from a socket is parsed in small slices, and requests begin, as `doors.turns` allows. What is held for connections
is counted in `doors.held`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import CloseCode, Frame

from firebox.doors.accepting import Admitted
from firebox.doors.held import Bounds, Holding
from firebox.doors.turns import Turns
from firebox.errors import BodiesFull

HEAD_TIMEOUT_S = 20.0
"""How long a client may take to send the head of a request."""
HEAD_BYTES = 64 * 1024
"""Request line and header fields together; trailers count too."""
HEAD_FIELDS = 100
AT_ONCE_BYTES = 1024
"""What is parsed as soon as it is read: an ordinary request."""
SLICE_BYTES = 4 * 1024
"""What is parsed in one go of anything that is larger: up to 700 frames of a WebSocket."""
JOINED_BYTES = 16 * 1024
"""A body that is longer is not copied to be sent with its head."""
FRAME_CHARACTERS = 128 * 1024
"""A message that is longer is sent in frames of this size."""
MESSAGE_BYTES = 512
"""What a message in the queue takes besides its data."""


class HeadTooLarge(Exception):
    """The head of a request is larger than it may be."""


class GuardedTransport:
    """A transport that reads only while nobody wants it to pause, and that counts as a connection of its client."""

    def __init__(self, transport: asyncio.Transport, admitted: Admitted) -> None:
        self.counted_client = admitted.client
        self._transport = transport
        self._pauses: set[str] = set()
        self._close_counted: Callable[[], None] | None = admitted.close
        self._joins = False
        self._held = b""
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def join_writes(self) -> None:
        """Send what is written next together with what follows it at once: the head of an answer with its body."""
        self._joins = True

    def write(self, data: bytes) -> None:
        if self._joins:
            self._joins = False
            self._flush()
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)
        elif self._held and len(data) <= JOINED_BYTES:
            self._held += data
            self._flush()
        else:
            self._flush()
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)

    def pause(self, reason: str) -> None:
        """Stop reading until `resume` is called for the same reason."""
        if not self._pauses and not self.is_closing():
            self._transport.pause_reading()
        self._pauses.add(reason)

    def resume(self, reason: str) -> None:
        if reason in self._pauses:
            self._pauses.remove(reason)
            if not self._pauses and not self.is_closing():
                self._transport.resume_reading()

    def pause_reading(self) -> None:
        self.pause("protocol")

    def resume_reading(self) -> None:
        self.resume("protocol")

    def lost(self) -> None:
        """Stop counting the connection: it is gone."""
        if self._close_counted is not None:
            self._close_counted()
            self._close_counted = None


class Slices:
    """What was read from a connection and is not parsed yet. parse: takes a slice; is_blocked: whether it has to wait."""

    def __init__(
        self, turns: Turns, transport: GuardedTransport, parse: Callable[[memoryview], None], is_blocked: Callable[[], bool]
    ) -> None:
        self._turns = turns
        self._transport = transport
        self._client = transport.counted_client
        self._parse = parse
        self._is_blocked = is_blocked
        self._waiting: deque[memoryview] = deque()
        self._joined = False

    def feed(self, data: bytes) -> None:
        """Parse what was read: a little of it at once if this is its client's turn, more when that comes."""
        if len(data) <= AT_ONCE_BYTES and not self._waiting and self._turns.is_open(self._client) and not self._is_blocked():
            self._turns.take(self._client)
            self._parse(memoryview(data))
            return
        self._waiting.append(memoryview(data))
        self.wake()
        if self._waiting:
            self._transport.pause("slices")

    def wake(self) -> None:
        """Go on: what blocked may be over."""
        if self._waiting and not self._joined and not self._is_blocked():
            self._joined = True
            self._turns.join(self._client, self._parse_next)

    def _parse_next(self) -> bool:
        """Parse a slice. Returns whether there is more to be parsed now."""
        if self._transport.is_closing():
            self._waiting.clear()
        elif self._waiting and not self._is_blocked():
            data = self._waiting.popleft()
            if len(data) > SLICE_BYTES:
                self._waiting.appendleft(data[SLICE_BYTES:])
            try:
                self._parse(data[:SLICE_BYTES])
            except BaseException:
                self._transport.abort()  # as asyncio does where data is parsed at once
                raise
        if not self._waiting:
            self._transport.resume("slices")
        self._joined = bool(self._waiting) and not self._is_blocked()
        return self._joined

    def drop(self) -> None:
        """Forget what waits."""
        self._waiting.clear()


class BoundedConnection(HttpToolsProtocol):
    """An HTTP connection. Heads are bounded in bytes, fields and time; requests that were sent ahead wait unparsed."""

    _head_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _fields = 0
    _parsed = False
    _silent_bytes = 0
    """What the parser has taken since it last reported anything: the part of a field, of a trailer or of a chunk extension."""
    _is_head_too_large = False
    _has_turn = False

    def __init__(self, turns: Turns, admitted: Admitted, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._turns = turns
        self._admitted = admitted

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._guarded = GuardedTransport(transport, self._admitted)
        self._slices = Slices(self._turns, self._guarded, self._parse, self._waits_for_answer)
        super().connection_made(cast(asyncio.Transport, self._guarded))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._slices.drop()
        self._guarded.lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._slices.feed(data)

    def _parse(self, data: memoryview) -> None:
        self._parsed = False
        super().data_received(cast(bytes, data))
        self._silent_bytes = 0 if self._parsed else self._silent_bytes + len(data)
        if self._silent_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()

    def _waits_for_answer(self) -> bool:
        """Whether a request waits for the answer to the one before it: no more are parsed until then."""
        return bool(self.pipeline)

    def handle_websocket_upgrade(self) -> None:
        # A client may send nothing before it has got its answer.
        self._slices.drop()
        super().handle_websocket_upgrade()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._parsed = self._in_head = True
        self._head_bytes = self._fields = 0
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._count(len(name) + len(value) + 4)
        if self._in_head:  # a trailer is no header: nobody has asked for it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._parsed = True
        self._in_head = False
        self._stop_waiting()
        self._turns.take(self._admitted.client)
        self._has_turn = True
        super().on_headers_complete()
        self._has_turn = False

    def on_body(self, body: bytes) -> None:
        self._parsed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._parsed = True
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Serve a request: at once if it has just been parsed, in another turn if it was sent ahead of an answer."""
        self._guarded.join_writes()
        if self._has_turn:
            super()._start_asgi_task(cycle, app)
            return
        start = super()._start_asgi_task

        def begin() -> bool:
            if not self.transport.is_closing():
                self._turns.take(self._admitted.client)
                start(cycle, app)
            return False

        self._turns.join(self._admitted.client, begin)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and self.cycle.response_complete:
            # Nobody reads the rest of this body; it has to end all the same.
            self._expect_head()
        self._slices.wake()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP. Called by the parser's caller for every failure of the parser, also for those raised here."""
        if self._is_head_too_large:
            self._refuse_head()
        elif self._is_answering():
            self.transport.close()
        else:
            super().send_400_response(msg)

    def _count(self, size_bytes: int) -> None:
        self._parsed = True
        self._head_bytes += size_bytes
        if self._head_bytes > HEAD_BYTES or self._fields > HEAD_FIELDS:
            self._is_head_too_large = True
            raise HeadTooLarge

    def _refuse_head(self) -> None:
        message = f"the head of the request is larger than {HEAD_BYTES} bytes or has more than {HEAD_FIELDS} fields"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "http.head_too_large", message)

    def _refuse(self, status: HTTPStatus, code: str, message: str) -> None:
        """Answer in the shapes of all doors at once, unless an earlier request is being answered, and close."""
        if not self._is_answering():
            self.transport.write(refusal(status, code, message))
        self.transport.close()

    def _is_answering(self) -> bool:
        return bool(self.cycle) and not self.cycle.response_complete

    def _expect_head(self) -> None:
        self._stop_waiting()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class BoundedWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket. Frames are parsed only while its client takes what it is sent and the application takes what came before."""

    _queued_bytes = 0
    _unsent_bytes = 0

    def __init__(self, bounds: Bounds, turns: Turns, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._sending = asyncio.Lock()
        self._bounds = bounds
        self._turns = turns
        self._holding: Holding | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport of the HTTP connection over, which counts it already."""
        self._guarded = cast(GuardedTransport, transport)
        self._slices = Slices(self._turns, self._guarded, self._parse, self._is_blocked)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._slices.drop()
        self._guarded.lost()
        if self._holding is not None:
            self._holding.close()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        # Else a client that sends pings and takes no pongs fills the memory with them.
        self._guarded.pause("writing")
        super().pause_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._guarded.resume("writing")
        if not self.transport.is_closing():
            self._hold()
        self._slices.wake()

    def data_received(self, data: bytes) -> None:
        self._slices.feed(data)

    def _is_blocked(self) -> bool:
        return self.read_paused or not self.writable.is_set()

    def _parse(self, data: memoryview) -> None:
        super().data_received(cast(bytes, data))
        if not self.handshake_initiated:
            if self.conn.handshake_exc is not None:  # a line that is too long for it
                self.transport.write(b"".join(self.conn.data_to_send()))
                self.transport.close()
        elif not self.transport.is_closing():
            self._hold()

    def handle_text(self, event: Frame) -> None:
        self._begin("text", event)

    def handle_bytes(self, event: Frame) -> None:
        self._begin("bytes", event)

    def handle_cont(self, event: Frame) -> None:
        """Add a frame to its message: in one piece, since a list of many small ones takes many times their size."""
        message = cast(bytearray, self.frames[0])
        message += event.data
        if event.fin:
            self.frames = [bytes(message)]
            self._end()

    async def receive(self) -> Any:
        if not self.queue.empty():  # many came in one slice; a single one has had its client's turn when it was parsed
            await self._turns.wait(self._guarded.counted_client)
        message = await super().receive()
        if self.queue.empty():
            self._queued_bytes = 0
            self._hold()
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
            self._hold()
        # A client may have answered a close already.
        self._slices.wake()

    async def _send_in_frames(self, text: str) -> None:
        """Send a large message in several frames, each when the one before it has gone out, with turns for others in between."""
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
                self._hold()
                await asyncio.sleep(0)
        except InvalidState:
            raise ClientDisconnected from None
        finally:
            if self._unsent_bytes:
                # Nothing else may follow half a message.
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
        """Queue a message that has ended. What is sent after our close is not read any more."""
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

    def _hold(self) -> None:
        """Count what is held for this client; one for whom there is no room is told to come again."""
        if self.disconnected:
            return  # the application still takes what came before, but nobody would stop counting what never ended
        received_bytes = len(self.conn.reader.buffer) + sum(map(len, self.frames)) + self._queued_bytes
        size_bytes = received_bytes + self._guarded.get_write_buffer_size() + self._unsent_bytes
        if self._holding is None:
            if size_bytes < self._bounds.uncounted_bytes:
                return
            # By now the application has put the client's own address in the place of a proxy's.
            self._holding = self._bounds.held.open(self.scope["client"][0] if self.scope["client"] else "")
        try:
            self._holding.set(size_bytes, whatever_size=size_bytes > received_bytes)
        except BodiesFull as error:
            self.conn.fail(CloseCode.TRY_AGAIN_LATER, error.message[:120])
            self.handle_parser_exception()
            if size_bytes > received_bytes:
                self._guarded.abort()  # it does not take what was sent, so it would not take this either


def refusal(status: HTTPStatus, code: str, message: str) -> bytes:
    """Write an answer in the shapes of all doors, after which the connection is closed."""
    body = json.dumps({"error": {"code": code, "message": message}, "message": message}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[status] + head + body
