"""Download of package files, resumed after a failure and released only after verification."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from firebox.domain.errors import DownloadFailed, NotTrusted, WrongChecksum
from firebox.files.atomic_write import sync_folder
from firebox.files.checksum import file_checksum
from firebox.packages.download.transfer import (
    WRITE_BYTES,
    Transfer,
    check_free_space,
    max_file_bytes,
    package_too_large,
    validator_path,
    write_all,
)
from firebox.packages.entry import Entry, Progress, Report
from firebox.packages.file_locks import refers_to, try_lock
from firebox.packages.repository import network
from firebox.packages.repository.index import CHECKSUM_DIGITS
from firebox.packages.repository.signatures import check_trust, source_of, verify_signature
from firebox.packages.repository.sources import path_of_url
from firebox.settings.settings import Settings

BUSY_PAUSE_S = 0.2
"""Delay between checks whether another download of the same file has finished."""

_PART = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


async def fetch(entry: Entry, folder: Path, settings: Settings, report: Report) -> Path:
    """Download a package file into a folder and verify it. The caller may move it away.

    folder: created if missing. Partial downloads stay there and are resumed next time; invalid ones are deleted.
    Raises: NotTrusted; WrongChecksum; DownloadFailed.
    """
    keys = check_trust(entry, settings)
    algorithm, digest = strongest_checksum(entry)
    if entry.size_bytes > settings.max_package_bytes:
        raise package_too_large(entry, entry.size_bytes, settings)
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    path = folder / f"{entry.name}-{digest[:16]}.package"
    part = path.with_suffix(".part")
    try:
        async with _locked_part(part, entry, report) as opened:
            if not await _has_checksum(path, algorithm, digest, entry, report):
                await _download_and_verify(entry, part, opened, settings, report)
                await asyncio.to_thread(_finish, opened, part, path)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            _delete_partial(part)
        raise DownloadFailed(f"{entry.name} cannot be stored in {folder}: {error.strerror or error}") from None
    if keys:
        report(Progress(package=entry.name, step="verify", words="signature"))
        try:
            await asyncio.to_thread(verify_signature, path, signature=entry.signature.encode(), keys=keys, what=entry.name)
        except NotTrusted:
            path.unlink(missing_ok=True)
            raise
    return path


def strongest_checksum(entry: Entry) -> tuple[str, str]:
    """Return algorithm and digest of the strongest checksum. Raises: NotTrusted if there is none."""
    for algorithm in CHECKSUM_DIGITS:
        if algorithm in entry.checksums:
            return algorithm, entry.checksums[algorithm]
    raise NotTrusted(f"{entry.name} has no checksum in the index of repository {entry.repository}")


async def _download_and_verify(entry: Entry, part: Path, opened: BinaryIO, settings: Settings, report: Report) -> None:
    """Download the content into the partial file and verify it. Raises: WrongChecksum, DownloadFailed, OSError."""
    algorithm, digest = strongest_checksum(entry)
    for _ in range(2):
        resumed = await _download(entry, part, opened, settings, report)
        if await _has_checksum(part, algorithm, digest, entry, report):
            return
        opened.truncate(0)
        if not resumed:
            break
        # The remote file may have changed, and not every server detects that when a download resumes: download it once more.
    raise WrongChecksum(
        f"{entry.name}: the {algorithm} of the download differs from repository {entry.repository or '(unnamed)'}",
        hint="run `firebox packages sync`; if that does not help, the repository is inconsistent",
    )


async def _download(entry: Entry, part: Path, opened: BinaryIO, settings: Settings, report: Report) -> bool:
    """Complete the file. Return whether it was assembled from several downloads."""
    check_free_space(entry, part.parent, entry.size_bytes)
    if entry.download.startswith("file:"):
        await asyncio.to_thread(_copy, entry, opened, settings, report)
        return False
    transfer = Transfer(entry, part, opened, source_of(entry, settings), settings, report)
    try:
        await transfer.run()
    except (network.TransientError, network.PermanentError) as error:
        hint = "the partial download is kept; try again" if isinstance(error, network.TransientError) else ""
        raise DownloadFailed(f"{entry.name} cannot be downloaded: {error}", hint=hint) from None
    return transfer.resumed


@asynccontextmanager
async def _locked_part(part: Path, entry: Entry, report: Report) -> AsyncGenerator[BinaryIO]:
    """Open and lock the partial file; wait for other downloads of it, in this process and others."""
    reported = False
    while True:
        with os.fdopen(os.open(part, _PART, 0o600), "r+b", buffering=0) as opened:
            descriptor = opened.fileno()
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EEXIST, f"{part} is not a regular file")
            if not try_lock(descriptor):
                if not reported:
                    report(Progress(package=entry.name, step="download", words="waiting for another download of the same file"))
                    reported = True
            elif refers_to(descriptor, part):  # a previous holder may have renamed it
                try:
                    yield opened
                finally:
                    if refers_to(descriptor, part) and os.fstat(descriptor).st_size == 0:
                        _delete_partial(part)
                return
        await asyncio.sleep(BUSY_PAUSE_S)


async def _has_checksum(path: Path, algorithm: str, digest: str, entry: Entry, report: Report) -> bool:
    """Verify the checksum of a file; delete a complete file that fails. False if it does not exist."""
    try:
        size_bytes = path.lstat().st_size  # noqa: ASYNC240 - a quick local stat
    except FileNotFoundError:
        return False
    report(Progress(package=entry.name, step="verify", total=size_bytes))
    if await asyncio.to_thread(file_checksum, path, algorithm) != digest:
        if path.suffix != ".part":
            await asyncio.to_thread(path.unlink, missing_ok=True)
        return False
    report(Progress(package=entry.name, step="verify", done=size_bytes, total=size_bytes))
    return True


def _copy(entry: Entry, opened: BinaryIO, settings: Settings, report: Report) -> None:
    """Copy a local file. The copy is verified, so later changes of the original do not matter."""
    try:
        origin = os.open(path_of_url(entry.download), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise DownloadFailed(f"{entry.name} cannot be read: {error}") from None
    max_bytes = max_file_bytes(entry, settings)
    with os.fdopen(origin, "rb", buffering=0) as source:
        status = os.fstat(origin)
        if not stat.S_ISREG(status.st_mode):
            raise DownloadFailed(f"{entry.name} cannot be read: {entry.download} is not a regular file")
        if status.st_size > max_bytes:
            raise package_too_large(entry, status.st_size, settings)
        check_free_space(entry, Path(f"/proc/self/fd/{opened.fileno()}"), status.st_size + entry.size_bytes)
        opened.truncate(0)
        opened.seek(0)
        done = 0
        while chunk := source.read(min(WRITE_BYTES, max_bytes + 1 - done)):
            write_all(opened, chunk)
            done += len(chunk)
            report(Progress(package=entry.name, step="download", done=done, total=status.st_size))


def _delete_partial(part: Path) -> None:
    """Delete a partial file and its validator."""
    part.unlink(missing_ok=True)
    validator_path(part).unlink(missing_ok=True)


def _finish(opened: BinaryIO, part: Path, path: Path) -> None:
    """Rename the file to its final name after flushing it to disk."""
    os.fsync(opened.fileno())
    part.replace(path)
    validator_path(part).unlink(missing_ok=True)
    sync_folder(path.parent)
