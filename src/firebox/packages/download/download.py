"""Getting the file of a package: resumed where it broke off, bounded, and handed on only when it is what was announced."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from firebox.domain.errors import DownloadFailed, NotTrusted, WrongChecksum
from firebox.packages.download.transfer import WRITE_BYTES, Transfer, check_room, most_bytes, remove, too_large, write_all
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.repository import network
from firebox.packages.repository.index import CHECKSUM_DIGITS
from firebox.packages.repository.signatures import verify_file
from firebox.packages.repository.sources import path_of
from firebox.packages.repository.trust import check_trust, source_of
from firebox.settings.settings import Settings

BUSY_PAUSE_S = 0.2
"""Between looks at whether somebody else has done with the same file."""

_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


async def fetch(entry: Entry, folder: Path, settings: Settings, report: Report) -> Path:
    """Get a package's file into a folder and check it; whoever calls may move it away.

    folder: is made when it is missing. What broke off is kept there and resumed next time; what is wrong is deleted.
    Raises: NotTrusted; WrongChecksum; DownloadFailed.
    """
    keys = check_trust(entry, settings)
    algorithm, digest = strongest_checksum(entry)
    if entry.size_bytes > settings.max_package_bytes:
        raise too_large(entry, entry.size_bytes, settings)
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
            remove(part)
            remove(part.with_suffix(".from"))
        raise DownloadFailed(f"{entry.name} cannot be kept in {folder}: {error.strerror or error}") from None
    if keys:
        report(Progress(package=entry.name, step="verify", words="signature"))
        try:
            await asyncio.to_thread(verify_file, path, signature=entry.signature.encode(), keys=keys, what=entry.name)
        except NotTrusted:
            remove(path)
            raise
    return path


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
    check_room(entry, part.parent, entry.size_bytes)
    if entry.download.startswith("file:"):
        await asyncio.to_thread(_copy, entry, opened, settings, report)
        return False
    transfer = Transfer(entry, part, opened, source_of(entry, settings), settings, report)
    try:
        await transfer.run()
    except network.Unreachable as error:
        raise DownloadFailed(f"{entry.name} cannot be fetched: {error}", hint="what came so far is kept: try again") from None
    except network.Refused as error:
        raise DownloadFailed(f"{entry.name} cannot be fetched: {error}") from None
    return transfer.joined


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
                            remove(part)
                            remove(part.with_suffix(".from"))
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
            remove(path)
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
    bound_bytes = most_bytes(entry, settings)
    with os.fdopen(origin, "rb", buffering=0) as source:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise DownloadFailed(f"{entry.name} cannot be read: {entry.download} is no file")
        if status.st_size > bound_bytes:
            raise too_large(entry, status.st_size, settings)
        check_room(entry, Path(f"/proc/self/fd/{opened.fileno()}"), status.st_size + entry.size_bytes)
        opened.truncate(0)
        opened.seek(0)
        done = 0
        while chunk := source.read(min(WRITE_BYTES, bound_bytes + 1 - done)):
            write_all(opened, chunk)
            done += len(chunk)
            report(Progress(package=entry.name, step="download", done=done, total=status.st_size))


def _finish(opened: BinaryIO, part: Path, path: Path) -> None:
    """Give the file its name once all of it is on the disk."""
    os.fsync(opened.fileno())
    part.replace(path)
    remove(part.with_suffix(".from"))
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
