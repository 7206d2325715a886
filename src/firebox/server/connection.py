"""HTTP connections with bounded memory and fair scheduling.

uvicorn limits neither the head of a request nor how much it parses at once. Here a head is limited in bytes, fields and time.
Input is parsed in small slices. Slices and new requests are scheduled by `doors.http.fair_scheduler`, and memory is limited by
`doors.http.client_limits`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from firebox.doors.http.acceptor import Admitted
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.server.request_parser import RequestParser

HEAD_TIMEOUT_S = 20.0
"""How long a client may take to send the head of a request."""
HEAD_BYTES = 64 * 1024
"""Limit of the request line and header fields together; trailers count too."""
HEAD_FIELDS = 100
AT_ONCE_BYTES = 1024
"""Input up to this size is parsed as soon as it is read: an ordinary request."""
SLICE_BYTES = 4 * 1024
"""How much of larger input is parsed at once: up to 700 WebSocket frames."""
JOINED_BYTES = 16 * 1024
"""A longer body is not copied in order to send it together with its head."""


class HeadTooLarge(Exception):
    """The head of a request exceeds a limit."""


class GuardedTransport:
    """A transport that reads only while no reason to pause remains, and that counts as a connection of its client."""

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
        """Delay the next write until the one that follows it: the head of a response with its body."""
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
        """Stop reading until `resume` is called with the same reason."""
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
        """Stop counting the connection."""
        if self._close_counted is not None:
            self._close_counted()
            self._close_counted = None


class Slices:
    """Input of one connection that is not parsed yet. parse: consumes a slice; is_blocked: whether parsing must wait."""

    def __init__(
        self,
        turns: FairScheduler,
        transport: GuardedTransport,
        parse: Callable[[memoryview], None],
        is_blocked: Callable[[], bool],
    ) -> None:
        self._turns = turns
        self._transport = transport
        self._client = transport.counted_client
        self._parse = parse
        self._is_blocked = is_blocked
        self._waiting: deque[memoryview] = deque()
        self._joined = False

    def feed(self, data: bytes) -> None:
        """Parse a small input right away if it is its client's turn; queue everything else."""
        if len(data) <= AT_ONCE_BYTES and not self._waiting and self._turns.is_open(self._client) and not self._is_blocked():
            self._turns.take(self._client)
            self._parse(memoryview(data))
            return
        self._waiting.append(memoryview(data))
        self.wake()
        if self._waiting:
            self._transport.pause("slices")

    def wake(self) -> None:
        """Continue parsing: the reason to wait may be gone."""
        if self._waiting and not self._joined and not self._is_blocked():
            self._joined = True
            self._turns.join(self._client, self._parse_next)

    def _parse_next(self) -> bool:
        """Parse one slice. Return whether more can be parsed now."""
        if self._transport.is_closing():
            self._waiting.clear()
        elif self._waiting and not self._is_blocked():
            data = self._waiting.popleft()
            if len(data) > SLICE_BYTES:
                self._waiting.appendleft(data[SLICE_BYTES:])
            try:
                self._parse(data[:SLICE_BYTES])
            except BaseException:
                self._transport.abort()  # as asyncio does when `data_received` fails
                raise
        if not self._waiting:
            self._transport.resume("slices")
        self._joined = bool(self._waiting) and not self._is_blocked()
        return self._joined

    def drop(self) -> None:
        """Discard queued input."""
        self._waiting.clear()


class BoundedConnection(HttpToolsProtocol):
    """An HTTP connection with limits on heads. Pipelined requests stay unparsed until they are due."""

    _head_timer: asyncio.TimerHandle | None = None
    _in_head = False
    _head_bytes = 0
    _fields = 0
    _parsed = False
    _silent_bytes = 0
    """Bytes parsed since the parser last reported anything: part of a field, a trailer or a chunk extension."""
    _is_head_too_large = False

    def __init__(self, turns: FairScheduler, admitted: Admitted, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.parser = RequestParser(self)
        self.pipelined: deque[tuple[RequestResponseCycle, Any]] = deque()
        self._turns = turns
        self._admitted = admitted

    def reopen_body(self) -> None:
        """Expect the body of a request that was reported as complete."""
        self.cycle.more_body = True
        self.cycle.message_event.clear()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._guarded = GuardedTransport(transport, self._admitted)
        # Nothing more is parsed while a pipelined request waits for the previous response.
        self._slices = Slices(self._turns, self._guarded, self._parse, lambda: bool(self.pipelined))
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

    def handle_websocket_upgrade(self) -> None:
        # A client may send nothing before the handshake is answered.
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
        if self._in_head:  # trailers are not headers: the application does not expect them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._parsed = True
        self._in_head = False
        self._stop_waiting()
        self._turns.take(self._admitted.client)
        before = self.cycle
        super().on_headers_complete()
        if self.pipeline:  # uvicorn would start it as soon as the previous response is complete
            self.pipelined.append(self.pipeline.pop())
        elif self.cycle is not before:
            self._guarded.join_writes()

    def on_body(self, body: bytes) -> None:
        self._parsed = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._parsed = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.pipelined and not self.transport.is_closing():
            if self.timeout_keep_alive_task is not None:
                self.timeout_keep_alive_task.cancel()
            self._turns.join(self._admitted.client, partial(self._start, *self.pipelined.popleft()))
        if self.cycle.more_body and self.cycle.response_complete:
            # Nothing reads the rest of this body, but it must still end in time.
            self._expect_head()
        self._slices.wake()

    def _start(self, cycle: RequestResponseCycle, app: Any) -> bool:
        """Start handling a pipelined request, in its client's turn."""
        if not self.transport.is_closing():
            self._turns.take(self._admitted.client)
            self._guarded.join_writes()
            task = self.loop.create_task(cycle.run_asgi(app))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
        return False

    def send_400_response(self, msg: str) -> None:
        """Reject a request that is not HTTP. Called for every parser failure, including those raised here."""
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
        if not self._is_answering():  # then an earlier request gets the rest of its response
            code = "http.head_too_large"
            self.transport.write(refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, code, message))
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


def refusal(status: HTTPStatus, code: str, message: str) -> bytes:
    """Return a response in the error format of all doors, which closes the connection."""
    body = json.dumps({"error": {"code": code, "message": message}, "message": message}).encode()
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[status] + head + body
