"""Waiting for locks between processes, see `file_locks`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from firebox.packages.file_locks import is_at, take

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.2
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


async def wait_for(descriptor: int, *, patience_s: float | None = None) -> bool:
    """Wait until the lock is ours alone. False when `patience_s` went by first; None waits for ever.

    The kernel tells nobody when a lock becomes free without blocking a thread that could not be stopped any more, so
    it is asked again and again, ever more slowly.
    """
    loop = asyncio.get_running_loop()
    ends_at = None if patience_s is None else loop.time() + patience_s
    pause_s = _FIRST_PAUSE_S
    while not take(descriptor):
        if ends_at is not None and loop.time() >= ends_at:
            return False
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    return True


@asynccontextmanager
async def alone(file: Path, *, lasting: bool = True) -> AsyncGenerator[None]:
    """Be the only one, of all tasks and processes, who is inside the context with this file.

    lasting: False removes the file afterwards. Raises: OSError when it cannot be made.
    """
    descriptor = await _locked(file)
    try:
        yield
    finally:
        if not lasting:
            # Whoever waits for it meanwhile finds another file, or none, at its place, and begins again.
            with contextlib.suppress(OSError):
                os.unlink(file)  # noqa: PTH108 - one system call
        os.close(descriptor)


async def _locked(file: Path) -> int:
    while True:
        descriptor = os.open(file, _LOCK_FILE, 0o600)
        try:
            await wait_for(descriptor)
            if is_at(descriptor, file):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
