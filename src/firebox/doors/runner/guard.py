"""TCP proxy before the gRPC library: limits what a connection may send.

The library checks the size of a call's metadata only after decompressing it, so an endless header block costs 100 MB per
connection, and it does not limit connections per address. It listens on a socket that only this proxy can reach.
Source: RFC 9113, sections 3.4 (preface), 4.1 (frames), 6.2 and 6.10 (headers).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import cast

from firebox.doors.http.acceptor import Acceptor, Admitted
from firebox.doors.http.client_limits import ConnectionLimit
from firebox.doors.http.fair_scheduler import FairScheduler
from firebox.doors.http.hosts_and_proxies import Proxies
from firebox.doors.http.requests import first_of
from firebox.doors.runner.grpc_logs import SparingLog
from firebox.settings.settings import Settings

HEAD_BYTES = 64 * 1024
"""Compressed size of one call's headers. The library limits their decompressed size to the same number."""
HEAD_FRAMES = 64
FRAMES_A_SECOND = 20_000
"""Limit on all connections of a client: inspecting that many takes 20 ms. A body of 32 MiB has 2,000."""
FRAMES_A_TURN = 256
"""How many frames of a connection are passed on per turn; a call takes a turn too."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_TIMEOUT_S = 10.0
READER_TIMEOUT_S = 30.0
"""A client that reads nothing for this long is disconnected."""
CHUNK_BYTES = 64 * 1024

_FRAME_HEAD_BYTES = 9
_HEADERS, _CONTINUATION = 0x1, 0x9
_END_HEADERS = 0x4


class OutOfBounds(Exception):
    """A client exceeded a limit that ordinary clients never reach."""


class FrameRate:
    """Counts the frames of each client per second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._frames = Counter[str]()

    def count(self, client: str) -> None:
        """Count a frame. Raises: OutOfBounds."""
        self._frames[client] += 1
        if self._frames[client] > FRAMES_A_SECOND:
            self.begin_anew()
            self._frames[client] += 1
            if self._frames[client] > FRAMES_A_SECOND:
                raise OutOfBounds("too many frames")

    def begin_anew(self) -> None:
        """Reset the counts once the second is over."""
        now = self._now()
        if now - self._began >= 1:
            self._began = now
            self._frames.clear()


class Frames:
    """Inspects the frames of one connection without storing them. rate: None for a trusted proxy."""

    def __init__(self, client: str, rate: FrameRate | None) -> None:
        self._client = client
        self._rate = rate
        self._frames = 0
        self._left_bytes = 0
        self._begun = b""
        self._head_bytes = 0
        self._head_frames = 0

    def feed(self, data: bytes) -> Generator[bytes]:
        """Inspect the next bytes after the preface. Yield them in parts, each for one turn of the client. Raises: OutOfBounds."""
        position = begin = 0
        while position < len(data):
            if self._left_bytes:
                skipped = min(self._left_bytes, len(data) - position)
                self._left_bytes -= skipped
                position += skipped
                continue
            missing = _FRAME_HEAD_BYTES - len(self._begun)
            self._begun += data[position : position + missing]
            position += missing
            if len(self._begun) == _FRAME_HEAD_BYTES:
                head, self._begun = self._begun, b""
                self._left_bytes = int.from_bytes(head[:3])
                self._check(kind=head[3], flags=head[4], size_bytes=self._left_bytes)
                self._frames += 1
                if head[3] == _HEADERS or self._frames % FRAMES_A_TURN == 0:
                    yield data[begin:position]
                    begin = position
        yield data[begin:]

    def _check(self, kind: int, flags: int, size_bytes: int) -> None:
        if self._rate is not None:
            self._rate.count(self._client)
        if kind not in (_HEADERS, _CONTINUATION):
            return
        if kind == _HEADERS:
            self._head_bytes = self._head_frames = 0
        self._head_bytes += size_bytes
        self._head_frames += 1
        if self._head_bytes > HEAD_BYTES or self._head_frames > HEAD_FRAMES:
            raise OutOfBounds("headers too large")
        if flags & _END_HEADERS:
            self._head_bytes = self._head_frames = 0


class Guard:
    """Forwards connections to the library's socket. inner: its path."""

    def __init__(self, inner: str, settings: Settings, turns: FairScheduler) -> None:
        self._inner = inner
        self._turns = turns
        self._is_proxy = Proxies(settings).include
        self._connections = ConnectionLimit(settings, self._is_proxy)
        self._rate = FrameRate()
        self._serving: set[asyncio.Task[None]] = set()
        self._numbers = count()
        # A predictable name could be taken by another process, and connections would fail.
        self._name = f"firebox-grpc-{os.getpid()}-{secrets.token_hex(8)}"
        self._log = SparingLog("firebox.runner")

    @asynccontextmanager
    async def listening(self, listener: socket.socket) -> AsyncGenerator[None]:
        """Serve while the context is open, then abort the remaining connections."""
        acceptor = Acceptor(listener, self._turns, self._connections, self._make, refused=self._note_refusal)
        try:
            yield
        finally:
            acceptor.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await acceptor.wait_closed()

    def _make(self, admitted: Admitted) -> asyncio.Protocol:
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=CHUNK_BYTES), partial(self._serve_counted, admitted))

    def _note_refusal(self, address: str) -> None:
        self._log.info("gRPC connections refused", reason="too many at once", address=address)

    async def _serve_counted(self, admitted: Admitted, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._serving.add(task)
        self._rate.begin_anew()
        try:
            await self._serve(reader, writer, admitted)
        except OutOfBounds as problem:
            self._log.info("gRPC connections closed", reason=str(problem), address=admitted.address)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client or the library closed the connection
        finally:
            writer.transport.abort()
            self._serving.discard(task)
            admitted.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, admitted: Admitted) -> None:
        async with asyncio.timeout(PREFACE_TIMEOUT_S):
            preface = await reader.readexactly(len(PREFACE))
        if preface != PREFACE:
            raise OutOfBounds("not HTTP/2")
        inner_socket = self._connect(admitted.address)
        inner_reader, inner_writer = await asyncio.open_unix_connection(sock=inner_socket, limit=CHUNK_BYTES)
        try:
            inner_writer.write(preface)
            await first_of(self._pass_in(reader, inner_writer, admitted), _pass_out(inner_reader, writer))
        finally:
            inner_writer.transport.abort()

    async def _pass_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, admitted: Admitted) -> None:
        """Forward what a client sends, as its turns come."""
        frames = Frames(admitted.client, None if self._is_proxy(admitted.address) else self._rate)
        while data := await reader.read(CHUNK_BYTES):
            await self._turns.wait(admitted.client)
            parts = frames.feed(data)
            writer.write(next(parts))
            for part in parts:
                await self._turns.wait(admitted.client)
                writer.write(part)
            await _drain(writer)

    def _connect(self, address: str) -> socket.socket:
        """Connect to the library, with a socket name that contains the client's address. Raises: OSError."""
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            inner.bind(f"\0{self._name}-{next(self._numbers)}/{address}")
            inner.connect(self._inner)
        except OSError:
            inner.close()
            raise
        return inner


async def _pass_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await _drain(writer)


async def _drain(writer: asyncio.StreamWriter) -> None:
    async with asyncio.timeout(READER_TIMEOUT_S):
        await writer.drain()
