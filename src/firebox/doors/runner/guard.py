"""Stands before the gRPC library: it bounds what a connection may send before anything is known of it.

The library bounds the heads of a call only once it has unpacked them, so a head that never ends costs it 100 MB a connection,
and it does not count connections by address. It listens on a socket that nobody else can reach; this passes on what keeps the
bounds. Source: RFC 9113, sections 3.4 (preface), 4.1 (frames), 6.2 and 6.10 (heads).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import unquote

from firebox.config import Settings
from firebox.doors.runner.grpc_logs import SparingLog
from firebox.service.callers import countable

HEAD_BYTES = 64 * 1024
"""Of one call, packed. What they unpack to is bounded by the library, with the same number."""
HEAD_FRAMES = 64
FRAMES_A_SECOND = 20_000
"""Of all connections of a client: to follow so many takes 20 ms. A body of 32 MiB has 2,000."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PREFACE_TIMEOUT_S = 10.0
READER_TIMEOUT_S = 30.0
"""A client that takes nothing for so long is dropped."""
CHUNK_BYTES = 64 * 1024

_FRAME_HEAD_BYTES = 9
_HEADERS, _CONTINUATION = 0x1, 0x9
_END_HEADERS = 0x4


class OutOfBounds(Exception):
    """A client sent what no client needs to."""


class FrameRate:
    """Counts the frames of each client in a second."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._frames = Counter[str]()

    def count(self, client: str) -> None:
        """Count one. Raises: OutOfBounds."""
        self._frames[client] += 1
        if self._frames[client] > FRAMES_A_SECOND:
            self.begin_anew()
            self._frames[client] += 1
            if self._frames[client] > FRAMES_A_SECOND:
                raise OutOfBounds("too many frames")

    def begin_anew(self) -> None:
        """Forget what was counted if the second is over."""
        now = self._now()
        if now - self._began >= 1:
            self._began = now
            self._frames.clear()


class Frames:
    """Follows the frames that a client sends on one connection, and keeps none of them."""

    def __init__(self, client: str, rate: FrameRate) -> None:
        self._client = client
        self._rate = rate
        self._left_bytes = 0
        self._begun = b""
        self._head_bytes = 0
        self._head_frames = 0

    def feed(self, data: bytes) -> None:
        """Follow the next piece of a connection, after its preface. Raises: OutOfBounds."""
        position = 0
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

    def _check(self, kind: int, flags: int, size_bytes: int) -> None:
        self._rate.count(self._client)
        if kind not in (_HEADERS, _CONTINUATION):
            return
        if kind == _HEADERS:
            self._head_bytes = self._head_frames = 0
        self._head_bytes += size_bytes
        self._head_frames += 1
        if self._head_bytes > HEAD_BYTES or self._head_frames > HEAD_FRAMES:
            raise OutOfBounds("a head that is too large")
        if flags & _END_HEADERS:
            self._head_bytes = self._head_frames = 0


class Guard:
    """Passes connections on to the library's socket. inner: its path."""

    def __init__(self, inner: Path, settings: Settings) -> None:
        self._inner = inner
        self._settings = settings
        self._connections = Counter[str]()
        self._rate = FrameRate()
        self._serving: set[asyncio.Task[None]] = set()
        self._numbers = count()
        # Whoever could guess a name might take it before us, and have connections fail.
        self._name = f"firebox-grpc-{os.getpid()}-{secrets.token_hex(8)}"
        self._log = SparingLog("firebox.runner")

    @asynccontextmanager
    async def listening(self, listener: socket.socket) -> AsyncGenerator[None]:
        """Serve while the context is open; what is still connected then is cut off."""
        server = await asyncio.start_server(self._accept, sock=listener, limit=CHUNK_BYTES)
        try:
            yield
        finally:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = str((writer.get_extra_info("peername") or ("",))[0])
        client = countable(address)
        self._rate.begin_anew()
        if not self._has_room(client):
            self._log.info("gRPC connections refused", reason="too many at once", address=address)
            writer.transport.abort()
            return
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._serving.add(task)
        self._connections[client] += 1
        try:
            await self._serve(reader, writer, address)
        except OutOfBounds as problem:
            self._log.info("gRPC connections closed", reason=str(problem), address=address)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client or the library went away
        finally:
            writer.transport.abort()
            self._serving.discard(task)
            self._connections[client] -= 1
            if not self._connections[client]:
                del self._connections[client]

    def _has_room(self, client: str) -> bool:
        """Say whether one more connection may be open, in all and of a client."""
        return (
            self._connections.total() < self._settings.connections
            and self._connections[client] < self._settings.connections_per_client
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        async with asyncio.timeout(PREFACE_TIMEOUT_S):
            preface = await reader.readexactly(len(PREFACE))
        if preface != PREFACE:
            raise OutOfBounds("not HTTP/2")
        inner_reader, inner_writer = await asyncio.open_unix_connection(sock=self._connect(address), limit=CHUNK_BYTES)
        try:
            inner_writer.write(preface)
            ways = [
                asyncio.ensure_future(_pass_on(reader, inner_writer, Frames(countable(address), self._rate).feed)),
                asyncio.ensure_future(_pass_on(inner_reader, writer)),
            ]
            try:
                done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                for way in done:
                    way.result()
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            inner_writer.transport.abort()

    def _connect(self, address: str) -> socket.socket:
        """Connect to the library, under a name from which it knows who the client is. Raises: OSError."""
        inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            inner.bind(f"\0{self._name}-{next(self._numbers)}/{address}")
            inner.connect(str(self._inner))
        except OSError:
            inner.close()
            raise
        return inner


def client_address(peer: str) -> str:
    """Read the address out of what gRPC calls a peer: "unix-abstract:firebox-grpc-7-f00-0/192.0.2.1". "" for another kind."""
    family, _, name = unquote(peer).partition(":")
    return name.rpartition("/")[2] if family == "unix-abstract" else ""


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: Callable[[bytes], None] | None = None
) -> None:
    while data := await reader.read(CHUNK_BYTES):
        if check is not None:
            check(data)
        writer.write(data)
        async with asyncio.timeout(READER_TIMEOUT_S):
            await writer.drain()
