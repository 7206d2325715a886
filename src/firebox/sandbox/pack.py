"""The server's side of collecting files: what PID 1 sends is read into a memfd and checked before anything is believed."""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from typing import Any, NamedTuple

from firebox.sandbox.collect import INDEX_BYTES
from firebox.sandbox.spec import Pack, PackedFile, SandboxFailure, decode

READ_BYTES = 64 << 10
_PATH_BYTES = 4095
PATIENCE_S = 30.0
"""How long PID 1 may take to send what it found, after its time for looking is over."""


class Collected(NamedTuple):
    """What was taken out of a sandbox. skipped: names, or patterns, of what was left out, and why. cpu_ms: what it cost.

    Whoever has it closes the pack's descriptor.
    """

    pack: Pack
    skipped: list[tuple[str, str]]
    cpu_ms: float


class PackReader:
    """Reads what PID 1 collects into a memfd, refusing whatever is not a well-formed pack within its bounds."""

    def __init__(self, readable: int, max_bytes: int, max_files: int, budget_ms: float) -> None:
        self._readable = readable
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._patience_s = budget_ms / 1000 + PATIENCE_S
        os.set_blocking(readable, False)
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._index: dict[str, Any] | None = None
        self._contents = os.memfd_create("pack", os.MFD_CLOEXEC)
        self._received = 0
        self._complete: asyncio.Future[None] = self._loop.create_future()

    async def read(self) -> Collected:
        self._loop.add_reader(self._readable, self._take)
        try:
            await asyncio.wait_for(self._complete, self._patience_s)
            return self._checked()
        except TimeoutError:
            os.close(self._contents)
            raise SandboxFailure("collect", errno.ETIMEDOUT, "the files did not arrive") from None
        except BaseException:
            os.close(self._contents)
            raise
        finally:
            self._loop.remove_reader(self._readable)
            os.close(self._readable)

    def _take(self) -> None:
        try:
            data = os.read(self._readable, READ_BYTES)
            if not data:
                self._loop.remove_reader(self._readable)
                self._complete.set_result(None)
                return
            if self._index is None:
                self._head += data
                data = self._parse_head()
            self._received += write_all(self._contents, data)
            if self._received > self._max_bytes:
                raise SandboxFailure("collect", detail="more bytes than allowed")
        except BlockingIOError:
            return
        except (OSError, SandboxFailure) as error:
            self._loop.remove_reader(self._readable)
            failure = error if isinstance(error, SandboxFailure) else SandboxFailure("collect", detail=str(error))
            self._complete.set_exception(failure)

    def _parse_head(self) -> bytes:
        if len(self._head) < 4:
            return b""
        (length,) = struct.unpack_from("<I", self._head)
        if length > INDEX_BYTES:
            raise SandboxFailure("collect", detail="index too long")
        if len(self._head) < 4 + length:
            return b""
        self._index = decode(bytes(self._head[4 : 4 + length]))
        return bytes(self._head[4 + length :])

    def _checked(self) -> Collected:
        if self._index is None:
            raise SandboxFailure("collect", detail="no index")
        files: list[PackedFile] = []
        names: set[str] = set()
        offset = 0
        try:
            for name, size, mode in self._index["files"]:
                if type(size) is not int or size < 0 or type(mode) is not int or mode & ~0o777:
                    raise ValueError("size or mode")
                if type(name) is not str or name in names or not _stays_inside(name):
                    raise ValueError("name")
                names.add(name)
                files.append(PackedFile(name, offset, size, mode))
                offset += size
            skipped = [(str(name), str(why)) for name, why in self._index["skipped"]]
            cpu_ms = float(self._index.get("cpu_ms", 0.0))
            if not 0 <= cpu_ms < self._patience_s * 1000:
                raise ValueError("processor time")
        except (KeyError, TypeError, ValueError) as error:
            raise SandboxFailure("collect", detail=f"malformed index: {error}") from None
        if offset != self._received or len(files) > self._max_files:
            raise SandboxFailure("collect", detail="the contents do not match their index")
        return Collected(Pack(self._contents, tuple(files)), skipped, cpu_ms)


def _stays_inside(name: str) -> bool:
    """Tell whether a relative name can be written below a folder, whatever that folder holds."""
    parts = name.split("/")
    return "\0" not in name and len(os.fsencode(name)) <= _PATH_BYTES and not {"", ".", ".."} & set(parts)


def write_all(descriptor: int, data: bytes) -> int:
    """Write everything. Returns the number of bytes."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    return len(data)
