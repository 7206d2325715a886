"""Inter-process file locks based on flock(2), which the kernel releases when the holder exits.

Source: flock(2): a lock belongs to the open file description, so two holders in one process exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.2
_LOCK_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Try to take a lock without waiting. Return False if another holder has it."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release a lock and keep the file descriptor open."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def refers_to(descriptor: int, path: Path) -> bool:
    """Check whether an open file descriptor still refers to the file at `path`."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (found.st_dev, found.st_ino) == (opened.st_dev, opened.st_ino)


@contextmanager
def lock_file(file: Path) -> Generator[None]:
    """Hold an exclusive lock on a file, which is created if missing. Blocks. Raises: OSError."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


async def wait_for_lock(descriptor: int, *, timeout_s: float | None = None) -> bool:
    """Wait for an exclusive lock; False after `timeout_s`. Polls: a thread in a blocking flock(2) could not be interrupted."""
    import asyncio  # a single run asks for its sandbox before this is loaded

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
async def lock_file_async(file: Path, *, keep: bool = True) -> AsyncGenerator[None]:
    """Hold an exclusive lock on a file as `lock_file`, without blocking. keep: False removes it afterwards. Raises: OSError."""
    while True:
        descriptor = os.open(file, _LOCK_FILE, 0o600)
        try:
            await wait_for_lock(descriptor)
            if not refers_to(descriptor, file):
                continue  # the last holder removed it
            try:
                yield
            finally:
                if not keep:
                    with suppress(OSError):
                        os.unlink(file)  # noqa: PTH108 - one system call
            return
        finally:
            os.close(descriptor)
