"""Inter-process file locks based on flock(2), which the kernel releases when the holder exits.

Source: flock(2): a lock belongs to the open file description, so two holders in one process exclude each other as well.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


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
