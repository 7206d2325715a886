"""Getting the file of a package: resumed where it broke off, bounded, and handed on only when it is what was announced."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import httpx
import msgspec
from msgspec import Struct
from pysequoia import Cert

from firebox.config import Settings
from firebox.errors import DownloadFailed, NotTrusted, WrongChecksum
from firebox.packages import network
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.index import CHECKSUM_DIGITS
from firebox.packages.signatures import trusted_keys, verify_file
from firebox.packages.sources import Source, path_of, sources_of

WRITE_BYTES = 1 << 20
"""Written at once, in a thread."""
PROGRESS_BYTES = 1 << 20
"""Several attempts that get further than this together are followed by more."""
MOST_ROUNDS = 100
SLACK_BYTES = 16 << 20
"""How much larger than its content a package's file may be, besides a quarter."""
BUSY_PAUSE_S = 0.2
"""Between looks at whether somebody else has done with the same file."""
STALL_S = 60.0
STALL_BYTES = 16 << 10
"""A server that sends less than this in that time is as good as gone."""

_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class _Validator(Struct, frozen=True, kw_only=True):
    """What a partial file is part of."""

    url: str = ""
    etag: str = ""
    last_modified: str = ""


async def fetch(entry: Entry, folder: Path, settings: Settings, report: Report) -> Path:
    """Get a package's file into a folder and check it; whoever calls may move it away.

    folder: is made when it is missing. What broke off is kept there and resumed next time; what is wrong is deleted.
    Raises: NotTrusted; WrongChecksum; DownloadFailed.
    """
    keys = check_trust(entry, settings)
    algorithm, digest = strongest_checksum(entry)
    if entry.size_bytes > settings.max_package_bytes:
        raise _too_large(entry, entry.size_bytes, settings)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    path = folder / f"{entry.name}-{digest[:16]}.package"
    part = path.with_suffix(".part")
    try:
        async with _alone(part, entry, report) as opened:
            if not await _is_right(path, algorithm, digest, entry, report):
                await _have(entry, part, opened, settings, report)
                await asyncio.to_thread(_finish, opened, part, path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            _remove(part)
            _remove(part.with_suffix(".from"))
        raise DownloadFailed(f"{entry.name} cannot be kept in {folder}: {error.strerror or error}") from None
    if keys:
        report(Progress(package=entry.name, step="verify", words="signature"))
        try:
            await asyncio.to_thread(verify_file, path, entry.signature.encode(), keys, entry.name)
        except NotTrusted:
            _remove(path)
            raise
    return path


def check_trust(entry: Entry, settings: Settings) -> list[Cert]:
    """Decide, before anything is fetched, whether a package may be installed at all. Return the keys that may sign it.

    None are returned where no signature is wanted: for an index of this machine, and for one on the network whose packages
    are to be installed on the word of its checksums. Raises: NotTrusted.
    """
    keys = trusted_keys(settings, entry.repository) if entry.repository else []
    if keys:
        if not entry.signature:
            raise NotTrusted(f"{entry.name} of repository {entry.repository} is not signed")
        return keys
    source = _source(entry, settings)
    on_network = source.on_network if source else not entry.download.startswith("file:")
    if on_network and not settings.allow_unsigned_packages:
        raise NotTrusted(
            f"no key is trusted for repository {entry.repository or 'of no name'}, so that nobody vouches for {entry.name}",
            hint=f"put the repository's OpenPGP certificate into trusted_keys_dir as {entry.repository or 'NAME'}.asc, "
            "or allow_unsigned_packages",
        )
    return []


def strongest_checksum(entry: Entry) -> tuple[str, str]:
    """The strongest checksum that is given: its algorithm and its digits. Raises: NotTrusted when there is none."""
    for algorithm in CHECKSUM_DIGITS:
        if algorithm in entry.checksums:
            return algorithm, entry.checksums[algorithm]
    raise NotTrusted(f"{entry.name} has no checksum in the index of repository {entry.repository}")


async def _have(entry: Entry, part: Path, opened: BinaryIO, settings: Settings, report: Report) -> None:
    """Have the right content in the partial file, from wherever it is. Raises: WrongChecksum, DownloadFailed, OSError."""
    algorithm, digest = strongest_checksum(entry)
    joined = await _download(entry, part, opened, settings, report)
    if await _is_right(part, algorithm, digest, entry, report):
        return
    if joined:
        # Not every server notices that what it continues is another file by now.
        opened.truncate(0)
        await _download(entry, part, opened, settings, report)
        if await _is_right(part, algorithm, digest, entry, report):
            return
    opened.truncate(0)
    raise WrongChecksum(
        f"{entry.name}: what came has another {algorithm} than repository {entry.repository or 'of no name'} announces",
        hint="sync; when that does not help, the server has something else than it announces",
    )


async def _download(entry: Entry, part: Path, opened: BinaryIO, settings: Settings, report: Report) -> bool:
    """Have the whole file. Say whether it was joined from what came at different times."""
    _check_room(entry, part.parent, entry.size_bytes)
    if entry.download.startswith("file:"):
        await asyncio.to_thread(_copy, entry, opened, settings, report)
        return False
    transfer = _Transfer(entry, part, opened, settings, report)
    try:
        await transfer.run()
    except network.Unreachable as error:
        raise DownloadFailed(f"{entry.name} cannot be fetched: {error}", hint="what came so far is kept: try again") from None
    except network.Refused as error:
        raise DownloadFailed(f"{entry.name} cannot be fetched: {error}") from None
    return transfer.joined


class _Transfer:
    """One file from a web server, in as many attempts as it takes."""

    def __init__(self, entry: Entry, part: Path, opened: BinaryIO, settings: Settings, report: Report) -> None:
        self._entry = entry
        self._opened = opened
        self._settings = settings
        self._report = report
        self._folder = part.parent
        self._notes = part.with_suffix(".from")
        self._source = _source(entry, settings)
        self._most_bytes = _most_bytes(entry, settings)
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
            _check_room(self._entry, self._folder, self._entry.size_bytes + max(total - self._done, 0))
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
            raise _too_large(self._entry, total, self._settings)
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
                    raise _too_large(self._entry, self._most_bytes + 1, self._settings)
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
            await asyncio.to_thread(_write_all, self._opened, content)
            self._done += len(content)
            self._report(Progress(package=self._entry.name, step="download", done=self._done, total=total))

    def _begin_again(self) -> None:
        self._opened.truncate(0)
        self._done = 0
        self.joined = False
        _remove(self._notes)


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


@asynccontextmanager
async def _alone(part: Path, entry: Entry, report: Report) -> AsyncGenerator[BinaryIO]:
    """Open the partial file as the only one who writes to it; wait for others, in this process or another one."""
    told = False
    while True:
        with os.fdopen(os.open(part, _PART, 0o600), "r+b", buffering=0) as opened:
            try:
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    report(Progress(package=entry.name, step="download", words="somebody else fetches it; waiting"))
                    told = True
            else:
                if _is_at(opened, part):
                    try:
                        yield opened
                    finally:
                        if _is_at(opened, part) and os.fstat(opened.fileno()).st_size == 0:
                            _remove(part)
                            _remove(part.with_suffix(".from"))
                    return
        await asyncio.sleep(BUSY_PAUSE_S)


def _is_at(opened: BinaryIO, path: Path) -> bool:
    """Say whether this open file still has this name: whoever had it before may have renamed it."""
    status = os.fstat(opened.fileno())
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EEXIST, f"{path} is no file")
    return (status.st_dev, status.st_ino) == (there.st_dev, there.st_ino)


async def _is_right(path: Path, algorithm: str, digest: str, entry: Entry, report: Report) -> bool:
    """Compare a file with its checksum; delete it when it is another one. One that is not there is not right."""
    size_bytes = _size(path)
    if size_bytes is None:
        return False
    report(Progress(package=entry.name, step="verify", total=size_bytes))
    if await asyncio.to_thread(_digest, path, algorithm) != digest:
        if path.suffix != ".part":
            _remove(path)
        return False
    report(Progress(package=entry.name, step="verify", done=size_bytes, total=size_bytes))
    return True


def _size(path: Path) -> int | None:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _copy(entry: Entry, opened: BinaryIO, settings: Settings, report: Report) -> None:
    """Copy a file of this machine: what is checked is the copy, whatever becomes of the original meanwhile."""
    try:
        origin = os.open(path_of(entry.download), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"{entry.name} cannot be read: {error}") from None
    most_bytes = _most_bytes(entry, settings)
    with os.fdopen(origin, "rb", buffering=0) as source:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise DownloadFailed(f"{entry.name} cannot be read: {entry.download} is no file")
        if status.st_size > most_bytes:
            raise _too_large(entry, status.st_size, settings)
        _check_room(entry, Path(f"/proc/self/fd/{opened.fileno()}"), status.st_size + entry.size_bytes)
        opened.truncate(0)
        opened.seek(0)
        done = 0
        while chunk := source.read(min(WRITE_BYTES, most_bytes + 1 - done)):
            _write_all(opened, chunk)
            done += len(chunk)
            report(Progress(package=entry.name, step="download", done=done, total=status.st_size))


def _write_all(opened: BinaryIO, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[opened.write(rest) :]


def _finish(opened: BinaryIO, part: Path, path: Path) -> None:
    """Give the file its name once all of it is on the disk."""
    os.fsync(opened.fileno())
    part.replace(path)
    _remove(part.with_suffix(".from"))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_room(entry: Entry, place: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(place).free
    if needed_bytes > free_bytes:
        raise DownloadFailed(
            f"{entry.name} needs {needed_bytes} bytes, and {free_bytes} are free", hint="make room in the data folder"
        )


def _most_bytes(entry: Entry, settings: Settings) -> int:
    """How large the file may be: packed it is not much larger than what is in it."""
    announced = entry.size_bytes + entry.size_bytes // 4 + SLACK_BYTES if entry.size_bytes else settings.max_package_bytes
    return min(announced, settings.max_package_bytes)


def _too_large(entry: Entry, size_bytes: int, settings: Settings) -> DownloadFailed:
    announced = f", and {entry.size_bytes} are announced" if entry.size_bytes else ""
    return DownloadFailed(
        f"{entry.name} has {size_bytes} bytes or more; at most {settings.max_package_bytes} are allowed{announced}",
        hint="the setting max_package_bytes says how large a package may be",
    )


def _source(entry: Entry, settings: Settings) -> Source | None:
    return next((source for source in sources_of(settings) if source.name == entry.repository), None)


def _read_notes(path: Path) -> _Validator:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Validator)
    except (OSError, msgspec.DecodeError):
        return _Validator()


def _differ(one: str, other: str) -> bool:
    return bool(one and other and one != other)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
