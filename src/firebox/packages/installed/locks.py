"""Asynchronous waiting for file locks, see `file_locks`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from firebox.packages.file_locks import refers_to, try_lock

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.2
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


async def wait_for_lock(descriptor: int, *, timeout_s: float | None = None) -> bool:
    """Wait for an exclusive lock. Return False after `timeout_s`; None waits forever.

    Polls with a growing delay: a blocking flock(2) would need a thread that cannot be interrupted.
    """
    loop = asyncio.get_running_loop()
    ends_at = None if timeout_s is None else loop.time() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not try_lock(descriptor):
        if ends_at is not None and loop.time() >= ends_at:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    return True


@asynccontextmanager
async def file_lock(file: Path, *, keep: bool = True) -> AsyncGenerator[None]:
    """Hold an exclusive lock on a file, across tasks and processes.

    lasting: False removes the file afterwards. Raises: OSError if it cannot be created.
    """
    descriptor = await _open_locked(file)
    try:
        yield
    finally:
        if not keep:
            # Waiters detect that the path no longer refers to their file, and start over.
            with contextlib.suppress(OSError):
                os.unlink(file)  # noqa: PTH108 - one system call
        os.close(descriptor)


async def _open_locked(file: Path) -> int:
    while True:
        descriptor = os.open(file, _LOCK_FILE, 0o600)
        try:
            await wait_for_lock(descriptor)
            if refers_to(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
