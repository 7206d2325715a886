"""Resumable, bounded download of one file over HTTP."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec
from msgspec import Struct

from firebox.domain.errors import DownloadFailed
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.repository import network
from firebox.packages.repository.sources import Source
from firebox.settings.settings import Settings

WRITE_BYTES = 1 << 20
"""Bytes per write, which runs in a thread."""
PROGRESS_BYTES = 1 << 20
"""Minimum progress of a round of attempts for another round to follow."""
MAX_ROUNDS = 100
SLACK_BYTES = 16 << 20
"""Allowed overhead of a package file over its content, in addition to a quarter of its size."""
STALL_S = 60.0
STALL_BYTES = 16 << 10
"""Minimum bytes received per `STALL_S`; a slower server counts as unreachable."""


class _Validator(Struct, frozen=True, kw_only=True):
    """Identifies the remote file that a partial download belongs to."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""


@dataclass
class Transfer:
    """Download of one file into `opened`. part: path of that file; its validator is stored beside it.

    source: the repository, for its credentials. resumed: whether the file was assembled from several downloads.
    """

    entry: Entry
    part: Path
    opened: BinaryIO
    source: Source | None
    settings: Settings
    report: Report
    resumed: bool = False
    _offset: int = 0

    async def run(self) -> None:
        """Download the rest of the file. Raises: network.TransientError; network.PermanentError; DownloadFailed; OSError."""
        async with network.new_client() as client:
            for _ in range(MAX_ROUNDS):
                began = self._size()
                try:
                    async for attempt in network.attempts():
                        with attempt:
                            await self._attempt(client)
                    return
                except network.TransientError:
                    if self._size() - began < PROGRESS_BYTES:
                        raise
        raise network.TransientError("the connection keeps failing")

    def _size(self) -> int:
        return os.fstat(self.opened.fileno()).st_size

    async def _attempt(self, client: httpx.AsyncClient) -> None:
        self._offset = self._size()
        validator = _read_validator(self.part)
        headers: dict[str, str] = {}
        if self._offset:
            headers["Range"] = f"bytes={self._offset}-"
            if tag := validator.etag or validator.last_modified:
                headers["If-Range"] = tag
        async with network.open_stream(client, self.entry.download, headers, self.source) as response:
            if response.status_code == network.RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range", "") == f"bytes */{self._offset}":
                    self.resumed = True
                    return
                self._restart()
                raise network.TransientError("the partial download is no longer valid")
            total = self._start_at(response, validator)
            check_free_space(self.entry, self.part.parent, self.entry.size_bytes + max(total - self._offset, 0))
            await self._receive(response, total)

    def _start_at(self, response: httpx.Response, validator: _Validator) -> int:
        """Prepare the partial file for the response body. Return the expected file size, 0 if unknown."""
        found = _Validator(
            url=self.entry.download,
            etag=etag if not (etag := response.headers.get("ETag", "")).startswith("W/") else "",
            last_modified=response.headers.get("Last-Modified", ""),
        )
        if response.status_code == network.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            changed = _differ(found.etag, validator.etag) or _differ(found.last_modified, validator.last_modified)
            if match is None or int(match[1]) != self._offset or changed:
                self._restart()
                raise network.TransientError("the file has changed on the server")
            total = 0 if match[3] == "*" else int(match[3])
            self.resumed = True
        else:
            self._restart()
            length = response.headers.get("Content-Length", "")
            total = int(length) if re.fullmatch(r"\d{1,18}", length) else 0
            validator_path(self.part).write_bytes(msgspec.json.encode(found))
        if total > max_file_bytes(self.entry, self.settings):
            self._restart()
            raise package_too_large(self.entry, total, self.settings)
        return total

    async def _receive(self, response: httpx.Response, total: int) -> None:
        await asyncio.to_thread(self.opened.seek, self._offset)
        self.report(Progress(package=self.entry.name, step="download", done=self._offset, total=total))
        max_bytes = max_file_bytes(self.entry, self.settings)
        pending = bytearray()
        try:
            # Chunks as they arrive: with a fixed size, the last partial chunk before a disconnect would be lost.
            async for chunk in _raise_on_stall(response.aiter_raw()):
                pending += chunk
                if self._offset + len(pending) > max_bytes:
                    pending.clear()
                    self._restart()
                    raise package_too_large(self.entry, max_bytes + 1, self.settings)
                if len(pending) >= WRITE_BYTES:
                    await self._write(pending, total)
        finally:
            # Keep what arrived before a failure.
            await self._write(pending, total)
        if total and self._offset != total:
            raise network.TransientError(f"received {self._offset} of {total} bytes")

    async def _write(self, pending: bytearray, total: int) -> None:
        if pending:
            content = bytes(pending)
            pending.clear()
            await asyncio.to_thread(write_all, self.opened, content)
            self._offset += len(content)
            self.report(Progress(package=self.entry.name, step="download", done=self._offset, total=total))

    def _restart(self) -> None:
        self.opened.truncate(0)
        self._offset = 0
        self.resumed = False
        validator_path(self.part).unlink(missing_ok=True)


async def _raise_on_stall(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Pass chunks on. Raises: network.TransientError when the transfer stalls."""
    loop = asyncio.get_running_loop()
    since, received = loop.time(), 0
    async for chunk in chunks:
        received += len(chunk)
        yield chunk
        if loop.time() - since > STALL_S:
            if received < STALL_BYTES:
                raise network.TransientError(f"received only {received} bytes in {STALL_S:g} s")
            since, received = loop.time(), 0


def check_free_space(entry: Entry, place: Path, needed_bytes: int) -> None:
    """Check the free disk space. Raises: DownloadFailed."""
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        hint = "free disk space in the data folder"
        raise DownloadFailed(f"{entry.name} needs {needed_bytes} bytes, but only {free_bytes} are free", hint=hint)


def max_file_bytes(entry: Entry, settings: Settings) -> int:
    """Return the maximum file size: a packed file is not much larger than its content."""
    announced = entry.size_bytes + entry.size_bytes // 4 + SLACK_BYTES if entry.size_bytes else settings.max_package_bytes
    return min(announced, settings.max_package_bytes)


def package_too_large(entry: Entry, size_bytes: int, settings: Settings) -> DownloadFailed:
    announced = f"; the index announces {entry.size_bytes}" if entry.size_bytes else ""
    message = f"{entry.name} has at least {size_bytes} bytes; the maximum is {settings.max_package_bytes}{announced}"
    return DownloadFailed(message, hint="the setting max_package_bytes is the maximum")


def write_all(opened: BinaryIO, content: bytes) -> None:
    """Write all of `content` to an unbuffered file."""
    rest = memoryview(content)
    while rest:
        rest = rest[opened.write(rest) :]


def validator_path(part: Path) -> Path:
    """Return where the validator of a partial file is stored."""
    return part.with_suffix(".from")


def _read_validator(part: Path) -> _Validator:
    try:
        return msgspec.json.decode(validator_path(part).read_bytes(), type=_Validator)
    except (OSError, msgspec.DecodeError):
        return _Validator()


def _differ(one: str, other: str) -> bool:
    return bool(one and other and one != other)
