"""Connection to the streams of a container: standard input out, frames of output in.

Our own, because a library that collects frames has no bound, and because standard input must be closed (a half-close) while
output still arrives.
Source: Docker Engine API, "Attach to a container": hijacking, stream format.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncGenerator
from typing import Any, cast
from urllib.parse import urlsplit

from firebox.domain.errors import ContainerError
from firebox.sandbox.spec import Output, StreamName

READ_BYTES = 64 * 1024
_HEADER = struct.Struct(">BxxxL")
_STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}
_MAX_HEAD_BYTES = 16 * 1024
_MAX_ERROR_BYTES = 64 * 1024


class Attachment:
    """The streams of one container. The owner calls `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def feed(self, data: bytes) -> None:
        """Write standard input and close it; waits for the program to read. A program that is gone reads nothing."""
        await self.write(data)
        self.write_eof()

    async def write(self, data: bytes) -> None:
        """Write standard input; waits for the program to read."""
        with contextlib.suppress(OSError, RuntimeError):  # the end of the output shows how the program ended
            for start in range(0, len(data), READ_BYTES):
                self._writer.write(data[start : start + READ_BYTES])
                await self._writer.drain()

    def write_eof(self) -> None:
        """Close standard input."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write_eof()

    async def output(self) -> AsyncGenerator[Output]:
        """Yield output until both streams or the connection have ended. Raises: ContainerError for what is no frame."""
        while True:
            try:
                number, size_bytes = _HEADER.unpack(await self._reader.readexactly(_HEADER.size))
            except (asyncio.IncompleteReadError, OSError):
                return
            stream = _STREAMS.get(number)
            if stream is None:
                raise ContainerError("the container engine sent something that is no frame of output")
            while size_bytes:
                try:
                    data = await self._reader.read(min(size_bytes, READ_BYTES))
                except OSError:
                    return
                if not data:
                    return
                size_bytes -= len(data)
                yield Output(stream, data)

    def close(self) -> None:
        """Close the connection at once; a reader sees the end."""
        self._writer.transport.abort()


async def open_attachment(url: str, path: str) -> Attachment:
    """Connect, and upgrade. path: with its query. Raises: OSError, asyncio.IncompleteReadError, ContainerError for a refusal."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(parts.path, limit=READ_BYTES)
    else:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=READ_BYTES)
    try:
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: {parts.netloc or 'localhost'}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        await writer.drain()
        await _read_head(reader)
    except BaseException:
        writer.transport.abort()
        raise
    return Attachment(reader, writer)


async def _read_head(reader: asyncio.StreamReader) -> None:
    """Read the response up to where frames begin. Raises: ContainerError, asyncio.IncompleteReadError."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        head = b""
    status = head.split(b" ", 2)[1:2]
    if len(head) <= _MAX_HEAD_BYTES and status in ([b"101"], [b"200"]):
        return
    body = await reader.read(_MAX_ERROR_BYTES)
    try:
        words = str(cast("dict[str, Any]", json.loads(body))["message"])[:500]
    except (ValueError, KeyError, TypeError):
        words = "it refused to attach"
    raise ContainerError(f"the container engine could not do it: {words}")
