"""The receiving side of collected files: PID 1's data is read into a memfd and validated as untrusted input."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import NamedTuple

from firebox.sandbox.protocol import messages
from firebox.sandbox.protocol.messages import CollectedFile, CollectedLeftOut, CollectIndex, LeftOut, layout, unpack_from
from firebox.sandbox.spec import Pack, PackedFile, SandboxFailure

TOO_LARGE = "too large"
TOO_MANY = "too many"
TOO_MANY_ENTRIES = "too many entries"
OUT_OF_TIME = "out of time"
NO_MATCH = "no such file"
NOT_REGULAR = "not a regular file"
"""Reasons for leaving a file out that no errno describes."""

_REASONS = {
    LeftOut.TOO_LARGE: TOO_LARGE, LeftOut.TOO_MANY: TOO_MANY, LeftOut.TOO_MANY_ENTRIES: TOO_MANY_ENTRIES,
    LeftOut.OUT_OF_TIME: OUT_OF_TIME, LeftOut.NO_MATCH: NO_MATCH, LeftOut.NOT_REGULAR: NOT_REGULAR,
}  # fmt: skip

READ_BYTES = 64 << 10
_PATH_BYTES = 4095
_LEFT_OUT = 100
_NAME_SHOWN = 64
PATIENCE_S = 30.0
"""How long PID 1 may take to send the files after its search has ended."""


class Collected(NamedTuple):
    """Files taken out of a sandbox. skipped: (name or pattern, reason) of what was left out. cpu_ms: CPU time of the search.

    The receiver closes the pack's descriptor.
    """

    pack: Pack
    skipped: list[tuple[str, str]]
    cpu_ms: float


class PackReader:
    """Reads a pack from PID 1 into a memfd. Rejects one that is malformed or exceeds its limits."""

    def __init__(self, readable: int, max_bytes: int, max_files: int, budget_ms: float) -> None:
        self._readable = readable
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._patience_s = budget_ms / 1000 + PATIENCE_S
        os.set_blocking(readable, False)
        self._loop = asyncio.get_running_loop()
        self._head = bytearray()
        self._counts: CollectIndex | None = None
        self._index: bytes | None = None
        self._contents = os.memfd_create("pack", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
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
            self._received += messages.write_all(self._contents, data)
            if self._received > self._max_bytes:
                raise SandboxFailure("collect", detail="more bytes than allowed")
        except BlockingIOError:
            return
        except (OSError, SandboxFailure) as error:
            self._loop.remove_reader(self._readable)
            failure = error if isinstance(error, SandboxFailure) else SandboxFailure("collect", detail=str(error))
            self._complete.set_exception(failure)

    def _parse_head(self) -> bytes:
        """Parse the index once it is complete. Returns the contents after it."""
        if self._counts is None:
            if len(self._head) < layout(CollectIndex).size:
                return b""
            self._counts = unpack_from(CollectIndex, bytes(self._head))
            if self._counts.files > self._max_files or self._counts.left_out > _LEFT_OUT:
                raise SandboxFailure("collect", detail="more files than allowed")
            if _index_bytes(self._counts) > messages.COLLECT_INDEX_BYTES:
                raise SandboxFailure("collect", detail="index too long")
        length = _index_bytes(self._counts)
        if len(self._head) < length:
            return b""
        self._index = bytes(self._head[:length])
        contents = bytes(self._head[length:])
        self._head.clear()
        return contents

    def _checked(self) -> Collected:
        if self._index is None:
            raise SandboxFailure("collect", detail="no index")
        try:
            files, skipped, cpu_ms = _parse_index(self._index)
            if cpu_ms >= self._patience_s * 1000:
                raise ValueError("CPU time")
        except ValueError as error:
            raise SandboxFailure("collect", detail=f"malformed index: {error}") from None
        if sum(file.size for file in files) != self._received:
            raise SandboxFailure("collect", detail="the contents do not match their index")
        return Collected(Pack(self._contents, files), skipped, cpu_ms)


class _Text:
    """The text of an index. Strings must not overlap, else a short index could expand to more text than fits into memory."""

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._unused = len(text)

    def at(self, offset: int) -> bytes:
        """Return the string at an offset. Raises: ValueError."""
        end = self._text.find(b"\0", offset)
        if end < 0:
            raise ValueError("text")
        self._unused -= end + 1 - offset
        if self._unused < 0:
            raise ValueError("strings that overlap")
        return self._text[offset:end]


def _index_bytes(counts: CollectIndex) -> int:
    structures = counts.files * layout(CollectedFile).size + counts.left_out * layout(CollectedLeftOut).size
    return layout(CollectIndex).size + structures + counts.text_bytes


def _parse_index(data: bytes) -> tuple[tuple[PackedFile, ...], list[tuple[str, str]], float]:
    """Return the files, (name, reason) of what was left out, and the CPU time in milliseconds. Raises: ValueError."""
    counts = unpack_from(CollectIndex, data)
    text = _Text(data[len(data) - counts.text_bytes :])
    position = layout(CollectIndex).size
    files: dict[bytes, PackedFile] = {}
    content_offset = 0
    for _ in range(counts.files):
        file = unpack_from(CollectedFile, data, position)
        position += layout(CollectedFile).size
        if file.mode & ~0o777:
            raise ValueError("mode")
        name = text.at(file.name)
        if name in files or not _stays_inside(name):
            raise ValueError("name")
        files[name] = PackedFile(os.fsdecode(name), content_offset, file.size, file.mode)
        content_offset += file.size
    skipped: list[tuple[str, str]] = []
    for _ in range(counts.left_out):
        left_out = unpack_from(CollectedLeftOut, data, position)
        position += layout(CollectedLeftOut).size
        shown = os.fsdecode(text.at(left_out.name))
        skipped.append((shown, _why(shown, left_out)))
    return tuple(files.values()), skipped, counts.cpu_us / 1000


def _why(name: str, left_out: CollectedLeftOut) -> str:
    """Return the reason why a file was left out. Raises: ValueError for an unknown one."""
    reason = LeftOut(left_out.reason)
    if reason == LeftOut.ERROR:
        if left_out.error > messages.MAX_ERRNO:
            raise ValueError("error")
        return os.strerror(left_out.error)
    return f"a folder; {name[:_NAME_SHOWN]}/* means its files" if reason == LeftOut.FOLDER else _REASONS[reason]


def _stays_inside(name: bytes) -> bool:
    """Return whether a relative name stays below the folder it is written to."""
    return len(name) <= _PATH_BYTES and not {b"", b".", b".."} & set(name.split(b"/"))
