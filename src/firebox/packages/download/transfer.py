"""One file from a web server, in as many attempts as it takes, within bounds."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
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
"""Written at once, in a thread."""
PROGRESS_BYTES = 1 << 20
"""Several attempts that get further than this together are followed by more."""
MOST_ROUNDS = 100
SLACK_BYTES = 16 << 20
"""How much larger than its content a package's file may be, besides a quarter."""
STALL_S = 60.0
STALL_BYTES = 16 << 10
"""A server that sends less than this in that time is as good as gone."""


class _Validator(Struct, frozen=True, kw_only=True):
    """What a partial file is part of."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""


class Transfer:
    """One file on its way into `opened`. part: the name of that file; what it is part of is noted beside it.

    source: the repository, for its password.
    """

    def __init__(
        self, entry: Entry, part: Path, opened: BinaryIO, source: Source | None, settings: Settings, report: Report
    ) -> None:
        self._entry = entry
        self._opened = opened
        self._settings = settings
        self._report = report
        self._folder = part.parent
        self._notes = part.with_suffix(".from")
        self._source = source
        self._most_bytes = most_bytes(entry, settings)
        self._done = 0
        self.joined = False

    async def run(self) -> None:
        """Raises: network.Unreachable; network.Refused; DownloadFailed; OSError."""
        async with network.new_client() as client:
            for _ in range(MOST_ROUNDS):
                began = self._size()
                try:
                    async for attempt in network.attempts():
                        with attempt:
                            await self._attempt(client)
                    return
                except network.Unreachable:
                    if self._size() - began < PROGRESS_BYTES:
                        raise
        raise network.Unreachable("the connection breaks off again and again")

    def _size(self) -> int:
        return os.fstat(self._opened.fileno()).st_size

    async def _attempt(self, client: httpx.AsyncClient) -> None:
        self._done = self._size()
        validator = _read_notes(self._notes)
        headers: dict[str, str] = {}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if known := validator.etag or validator.last_modified:
                headers["If-Range"] = known
        async with network.opened(client, self._entry.download, headers, self._source) as response:
            if response.status_code == network.RANGE_NOT_SATISFIABLE:
                if response.headers.get("Content-Range", "") == f"bytes */{self._done}":
                    self.joined = True
                    return
                self._begin_again()
                raise network.Unreachable("what was fetched so far is of no use any more")
            total = self._place(response, validator)
            check_room(self._entry, self._folder, self._entry.size_bytes + max(total - self._done, 0))
            await self._receive(response, total)

    def _place(self, response: httpx.Response, validator: _Validator) -> int:
        """Decide where the answer's bytes belong. Return how many the file will have, 0 when that is unknown."""
        found = _Validator(
            url=self._entry.download,
            etag=etag if not (etag := response.headers.get("ETag", "")).startswith("W/") else "",
            last_modified=response.headers.get("Last-Modified", ""),
        )
        if response.status_code == network.PARTIAL_CONTENT:
            match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", response.headers.get("Content-Range", ""))
            changed = _differ(found.etag, validator.etag) or _differ(found.last_modified, validator.last_modified)
            if match is None or int(match[1]) != self._done or changed:
                self._begin_again()
                raise network.Unreachable("the file has changed on the server")
            total = 0 if match[3] == "*" else int(match[3])
            self.joined = True
        else:
            self._begin_again()
            length = response.headers.get("Content-Length", "")
            total = int(length) if re.fullmatch(r"\d{1,18}", length) else 0
            self._notes.write_bytes(msgspec.json.encode(found))
        if total > self._most_bytes:
            self._begin_again()
            raise too_large(self._entry, total, self._settings)
        return total

    async def _receive(self, response: httpx.Response, total: int) -> None:
        await asyncio.to_thread(self._opened.seek, self._done)
        self._report(Progress(package=self._entry.name, step="download", done=self._done, total=total))
        pending = bytearray()
        try:
            # In whatever pieces it comes: a fixed size would lose the last piece before a break.
            async for chunk in _not_stalling(response.aiter_raw()):
                pending += chunk
                if self._done + len(pending) > self._most_bytes:
                    pending.clear()
                    self._begin_again()
                    raise too_large(self._entry, self._most_bytes + 1, self._settings)
                if len(pending) >= WRITE_BYTES:
                    await self._write(pending, total)
        finally:
            # What came before a break is worth keeping.
            await self._write(pending, total)
        if total and self._done != total:
            raise network.Unreachable(f"{self._done} of {total} bytes came")

    async def _write(self, pending: bytearray, total: int) -> None:
        if pending:
            content = bytes(pending)
            pending.clear()
            await asyncio.to_thread(write_all, self._opened, content)
            self._done += len(content)
            self._report(Progress(package=self._entry.name, step="download", done=self._done, total=total))

    def _begin_again(self) -> None:
        self._opened.truncate(0)
        self._done = 0
        self.joined = False
        remove(self._notes)


async def _not_stalling(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """Pass on what comes, as long as it comes at some speed."""
    loop = asyncio.get_running_loop()
    since, received = loop.time(), 0
    async for chunk in chunks:
        received += len(chunk)
        yield chunk
        if loop.time() - since > STALL_S:
            if received < STALL_BYTES:
                raise network.Unreachable(f"only {received} bytes came in {STALL_S:g} s")
            since, received = loop.time(), 0


def check_room(entry: Entry, place: Path, needed_bytes: int) -> None:
    """Refuse what there is no room for. Raises: DownloadFailed."""
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise DownloadFailed(
            f"{entry.name} needs {needed_bytes} bytes, and {free_bytes} are free", hint="make room in the data folder"
        )


def most_bytes(entry: Entry, settings: Settings) -> int:
    """How large the file may be: packed it is not much larger than what is in it."""
    announced = entry.size_bytes + entry.size_bytes // 4 + SLACK_BYTES if entry.size_bytes else settings.max_package_bytes
    return min(announced, settings.max_package_bytes)


def too_large(entry: Entry, size_bytes: int, settings: Settings) -> DownloadFailed:
    """Say that a package is too large."""
    announced = f", and {entry.size_bytes} are announced" if entry.size_bytes else ""
    return DownloadFailed(
        f"{entry.name} has {size_bytes} bytes or more; at most {settings.max_package_bytes} are allowed{announced}",
        hint="the setting max_package_bytes says how large a package may be",
    )


def write_all(opened: BinaryIO, content: bytes) -> None:
    """Write to a file that has no buffer."""
    rest = memoryview(content)
    while rest:
        rest = rest[opened.write(rest) :]


def remove(path: Path) -> None:
    """Delete a file that may be gone already."""
    path.unlink(missing_ok=True)


def _read_notes(path: Path) -> _Validator:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Validator)
    except (OSError, msgspec.DecodeError):
        return _Validator()


def _differ(one: str, other: str) -> bool:
    return bool(one and other and one != other)
